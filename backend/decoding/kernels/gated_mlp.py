"""The gated MLP's neurons for one token: ``a = act(W_g x) ⊙ (W_u x)``, both products in one pass."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from backend.compiling import compiled, compiled_parallel, compiled_reordered
from backend.decoding.kernels.linear import Floats, Indices, Weights, add_columns, dot_rows

SILU, GELU, GELU_TANH = 0, 1, 2
"""The activations that the kernels know."""


@compiled_reordered
def activate(values: Floats, kind: int) -> None:
    """Apply the activation in place. # [k]"""
    if kind == SILU:
        for i in range(values.shape[0]):
            values[i] = values[i] / (np.float32(1) + math.exp(-values[i]))
    elif kind == GELU:
        for i in range(values.shape[0]):
            values[i] = np.float32(0.5) * values[i] * np.float32(1 + math.erf(values[i] * 0.7071067811865476))
    else:
        for i in range(values.shape[0]):
            v = values[i]
            inner = np.float32(0.7978845608028654) * (v + np.float32(0.044715) * v * v * v)
            values[i] = np.float32(0.5) * v * (np.float32(1) + math.tanh(inner))


@compiled_parallel
def activated_rows(weights: Weights, scales: Floats, x: Floats, kind: int, out: Floats, threads: int) -> None:
    """Set ``out = act(W x)`` from a row-major weight. # [n, d], [d] → [n]"""
    n = weights.shape[0]
    for t in prange(threads):
        first, last = n * t // threads, n * (t + 1) // threads
        dot_rows(weights, scales, x, out, first, last)
        activate(out[first:last], kind)


@compiled_parallel
def neurons_by_rows(
    gate: Weights, gate_scales: Floats, up: Weights, up_scales: Floats, x: Floats, kind: int,
    gated: Floats, ups: Floats, out: Floats, threads: int) -> None:  # fmt: skip
    """Compute every neuron from row-major weights; ``gated`` gets ``act(W_g x)``, ``ups`` ``W_u x``.

    # gate, up [n, d], x [d], gated, ups and out [n]
    """
    n = gate.shape[0]
    for t in prange(threads):
        first, last = n * t // threads, n * (t + 1) // threads
        dot_rows(gate, gate_scales, x, gated, first, last)
        dot_rows(up, up_scales, x, ups, first, last)
        activate(gated[first:last], kind)
        for i in range(first, last):
            out[i] = gated[i] * ups[i]


@compiled_parallel
def neurons_by_columns(
    gate: Weights, gate_scales: Floats, up: Weights, up_offset: int, up_scales: Floats, x: Floats,
    chosen: Indices, kind: int, gated: Floats, ups: Floats, out: Floats, threads: int) -> None:  # fmt: skip
    """Compute every neuron from the chosen inputs, from input-major weights.

    Gate and up may be one matrix, gate first (Phi-3): ``up_offset`` is where up's outputs begin.

    # gate, up [d, ≥ n], x [d], chosen [k], gated, ups and out [n]
    """
    n = out.shape[0]
    for t in prange(threads):
        first, last = n * t // threads, n * (t + 1) // threads
        add_columns(gate, 0, gate_scales, x, chosen, gated, first, last)
        add_columns(up, up_offset, up_scales, x, chosen, ups, first, last)
        activate(gated[first:last], kind)
        for i in range(first, last):
            out[i] = gated[i] * ups[i]


@compiled
def scatter_product(values: Floats, factors: Floats, chosen: Indices, out: Floats) -> None:
    """Set ``out[chosen[i]] = values[chosen[i]]·factors[i]``: the other factor of the chosen neurons alone.

    # values [n], factors [k], chosen [k], out [n]
    """
    for i in range(chosen.shape[0]):
        out[chosen[i]] = values[chosen[i]] * factors[i]


@compiled
def scatter(factors: Floats, others: Floats, chosen: Indices, out: Floats) -> None:
    """Set ``out[chosen[i]] = factors[i]·others[i]``. # factors, others, chosen [k], out [n]"""
    for i in range(chosen.shape[0]):
        out[chosen[i]] = factors[i] * others[i]
