"""Skipping columns of one matrix: our kernel beside ``embedding_bag``, ``index_select`` and all of it.

    python -m benchmarks.kernels [--layers 30] [--repeats 15]

Gate and up of SmolLM2-135M's 30 layers (576 → 2·1,536, 212 MB in float32), one token, in milliseconds for all
layers: the median, every contender timed in turn in one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

INPUTS, OUTPUTS = 576, 2 * 1536


def main() -> None:
    """Print a table of milliseconds by density."""
    import numba
    import torch
    from torch import Tensor
    from torch.nn.functional import embedding_bag

    from backend.decoding.kernels.linear import chosen_columns, rows
    from backend.models.quantization import quantise_rows

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    threads = min(torch.get_num_threads(), numba.get_num_threads())
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(OUTPUTS, INPUTS, generator=random) for _ in range(arguments.layers)]
    x = torch.randn(INPUTS, generator=random)
    turned = [weight.t().contiguous() for weight in weights]
    small = [quantise_rows(weight) for weight in weights]
    small_turned = [values.t().contiguous().numpy() for values, _ in small]
    ones, out, given = np.ones(OUTPUTS, np.float32), np.empty(OUTPUTS, np.float32), x.numpy()

    def bags(chosen: Tensor) -> None:
        halves = torch.tensor([0, len(chosen) // 2])
        for w in turned:
            embedding_bag(chosen, w, halves, mode="sum", per_sample_weights=x[chosen]).sum(0)

    def columns(chosen: Tensor) -> None:
        for w in turned:
            chosen_columns(w.numpy(), ones, given, chosen.numpy(), out, threads)

    def small_columns(chosen: Tensor) -> None:
        for w, (_, scales) in zip(small_turned, small, strict=True):
            chosen_columns(w, scales.numpy(), given, chosen.numpy(), out, threads)

    contenders: dict[str, Callable[[Tensor], Any]] = {
        "torch.mv (all columns)": lambda _: [torch.mv(w, x) for w in weights],
        "our rows (all columns)": lambda _: [rows(w.numpy(), ones, given, out, threads) for w in weights],
        "our columns": columns,
        "embedding_bag, two bags": bags,
        "index_select": lambda chosen: [x[chosen] @ w.index_select(0, chosen) for w in turned],
        "our columns, int8": small_columns,
        "our rows, int8 (all columns)": lambda _: [
            rows(v.numpy(), s.numpy(), given, out, threads) for v, s in small
        ],
    }
    print(f"{arguments.layers} × {INPUTS} → {OUTPUTS}, {threads} threads; ms for all layers")
    for density in (0.2, 0.5, 1.0):
        chosen = torch.randperm(INPUTS, generator=random)[: round(density * INPUTS)].sort().values
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(arguments.repeats + 1):
            for name, run in contenders.items():
                start = time.perf_counter()
                run(chosen)
                if turn:
                    seconds[name].append(time.perf_counter() - start)
        for name, taken in seconds.items():
            print(f"density {density:<4} {name:<30}{statistics.median(taken) * 1e3:8.2f}")


if __name__ == "__main__":
    main()
