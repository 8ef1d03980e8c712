"""How fast residency is on masks recorded from the default model: ``python -m benchmarks.residency``.

Accesses a second of every rule, at every size in one pass and with one cache. The walks use one thread, so
they are timed in CPU seconds, which other work on the machine changes less than wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backend.evaluation.windows import cut_windows
from backend.experiments.laboratory import Laboratory
from backend.home import Home, data_root
from backend.residency import EVICTIONS, Eviction, MaskTrace, miss_curve_of, simulate
from backend.sparsity import make_policy

REPEATS = 5


def record(home: str | None, root: Path | None, tokens: int, density: float) -> list[MaskTrace]:
    """Return the masks of every hook of plain DIP on one window."""
    laboratory = Laboratory(Home.resolve(home), root)
    subject = laboratory.subject("smollm2-135m", "float32")
    text = laboratory.text("wikitext2" if root else "prose")
    ids = cut_windows(text, subject.loaded.tokenizer, 1, tokens, None).ids
    traces: list[MaskTrace] = []

    def watch(layer: int, site: str, mask: Any, values: Any) -> None:
        traces.append(MaskTrace.from_masks(mask[0].numpy()))

    subject.engine.hidden_states(make_policy("dip", {"density": density}), ids, watch=watch)
    return traces


def best_seconds(traces: list[MaskTrace], work: Callable[[MaskTrace], Any]) -> float:
    """Return the CPU seconds of the shortest run over all traces, after one that loads the kernels."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.thread_time()
        for trace in traces:
            work(trace)
        seconds.append(time.thread_time() - start)
    return min(seconds[1:])


def _half_cached(trace: MaskTrace, eviction: Eviction) -> Any:
    return simulate(trace, trace.size // 2, eviction)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home")
    parser.add_argument("--data-root", type=Path, default=data_root())
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--density", type=float, default=0.5)
    options = parser.parse_args()
    traces = record(options.home, options.data_root, options.tokens, options.density)
    accesses = int(sum(np.bitwise_count(trace.rows).sum() for trace in traces))
    print(f"{len(traces)} hooks, {options.tokens} tokens, density {options.density}: {accesses:,} accesses")
    for rule in EVICTIONS:
        seconds = best_seconds(traces, partial(miss_curve_of, eviction=rule))
        print(f"{rule:7} every size: {accesses / seconds / 1e6:7.1f} million accesses/s ({seconds:.3f} s)")
    for rule in EVICTIONS:
        seconds = best_seconds(traces, partial(_half_cached, eviction=rule))
        print(f"{rule:7} one size:   {accesses / seconds / 1e6:7.1f} million accesses/s ({seconds:.3f} s)")


if __name__ == "__main__":
    main()
