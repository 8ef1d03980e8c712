"""How much an evaluated cell costs beside a plain Hugging Face forward with NLL of the same tokens.

    python -m benchmarks.evaluation [--data-root DIR] [--tokens 4096] [--rounds 3]

All are timed in turn in one run, so that what disturbs one disturbs the others; the ratio of medians counts.
NLL, KL and agreement are included; the dense reference is computed once before, as in a sweep.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from backend.evaluation.fidelity import DenseReference, evaluate
from backend.evaluation.texts import load_text
from backend.evaluation.windows import Windows, cut_windows
from backend.home import Home, data_root
from backend.models.anatomy import find_anatomy
from backend.models.loading import load_model
from backend.sparsity import Policy, make_policy
from backend.sparsity.engine import MaskedEngine

CASES = [("glu_pruning", {"keep": 0.5}, 1.45), ("dip", {"density": 0.5}, 1.7), ("dense", {}, None)]
WINDOW = 1024


def _evaluated(engine: MaskedEngine, policy: Policy, reference: DenseReference) -> object:
    return list(evaluate(engine, policy, reference))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    loaded = load_model("smollm2-135m", Home.resolve(arguments.home))
    engine = MaskedEngine(loaded.model, find_anatomy(loaded.model))
    root = data_root(arguments.data_root)
    text = load_text("wikitext2" if root else "prose", root)
    windows = cut_windows(text, loaded.tokenizer, arguments.tokens // WINDOW, WINDOW)
    reference = DenseReference(windows)
    for index in range(len(windows)):
        reference.of(engine, index)

    jobs: dict[str, Callable[[], object]] = {
        "Hugging Face forward and NLL": lambda: plain(loaded.model, windows)
    }
    for name, settings, _ in CASES:
        policy = make_policy(name, settings)
        jobs[f"{name} {settings}"] = partial(_evaluated, engine, policy, reference)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(arguments.rounds):
        for name, job in jobs.items():
            start = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - start)

    print(f"{text.name}, {len(windows)} windows of {WINDOW}, {torch.get_num_threads()} threads, fp32")
    base = statistics.median(seconds["Hugging Face forward and NLL"])
    aims = [None, *(aim for *_, aim in CASES)]
    for (name, taken), aim in zip(seconds.items(), aims, strict=True):
        median = statistics.median(taken)
        print(f"{name:<36} {median:6.2f} s  {median / base:5.2f}×" + (f"  (aim ≤ {aim}×)" if aim else ""))


def plain(model: torch.nn.Module, windows: Windows) -> float:
    total = 0.0
    with torch.inference_mode():
        for row in windows.ids:
            logits = model(input_ids=row[None], use_cache=False).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits.float(), row[1:]))
    return total / len(windows)


if __name__ == "__main__":
    main()
