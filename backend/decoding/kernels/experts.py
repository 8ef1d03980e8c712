"""The routed experts of one token: ``y = Σ_r w_r W_d^r (act(W_g^r x) ⊙ W_u^r x)``, read where they lie."""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from backend.compiling import compiled_parallel
from backend.decoding.kernels.gated_mlp import activate
from backend.decoding.kernels.linear import Floats, Indices, dot_rows

Rows = NDArray[np.float32]
"""One slot a row. # [S, ≥ weights of a part]"""


@compiled_parallel
def routed_experts(
    gate_up: Rows, gate_up_at: int, down: Rows, down_at: int, slots: Indices, weights: Floats, x: Floats,
    n: int, kind: int, ones: Floats, hidden: Floats, out: Floats, threads: int) -> None:  # fmt: skip
    """Compute one token's experts without copying their weights together.

    Row s of ``gate_up`` holds [2n, d] weights from ``gate_up_at`` on (gate first), row s of ``down`` [d, n]
    from ``down_at`` on; they may be one array. The threads share each expert's neurons, then the outputs.

    # slots, weights [K], x [d], ones [≥ 2n], hidden [≥ K, 2n], out [d]
    """
    k, d = slots.shape[0], x.shape[0]
    for t in prange(threads):
        first, last = n * t // threads, n * (t + 1) // threads
        for r in range(k):
            matrix = gate_up[slots[r], gate_up_at : gate_up_at + 2 * n * d].reshape(2 * n, d)
            values = hidden[r]
            dot_rows(matrix, ones, x, values, first, last)
            dot_rows(matrix, ones, x, values, n + first, n + last)
            activate(values[first:last], kind)
            for i in range(first, last):
                values[i] *= values[n + i] * weights[r]
    for t in prange(threads):
        first, last = d * t // threads, d * (t + 1) // threads
        for i in range(first, last):
            out[i] = 0
        for r in range(k):
            row = down[slots[r]]
            values = hidden[r]
            for i in range(first, last):
                start = down_at + i * n
                total = values[0] * row[start]
                for j in range(1, n):
                    total += values[j] * row[start + j]
                out[i] += total
