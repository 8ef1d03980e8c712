"""Matrix times vector for one token: whole, chosen columns only, or chosen rows only.

A weight is float32, or int8 with one float32 scale per output row (``W ≈ diag(s)·Q``); a float32 weight has
scales of one. *Row-major* is ``W`` itself, one output's weights side by side; *input-major* is ``Wᵀ``, one
input's weights side by side, so that a column of ``W`` is one run of memory. All are bound by memory:
the threads share the outputs, and sixteen columns are added in one pass over an output (more than eight pays
for int8, where converting costs more than reading).

The number of threads is an argument, since a kernel that asks numba for it cannot be kept as machine code.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from backend.compiling import compiled_parallel, compiled_reordered

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Weights = NDArray[np.float32] | NDArray[np.int8]


@compiled_reordered
def dot_rows(weights: Weights, scales: Floats, x: Floats, out: Floats, first: int, last: int) -> None:
    """Set ``out[i] = s_i·(W_i · x)`` for rows first ≤ i < last of a row-major weight. # [n, d], [d] → [n]"""
    for i in range(first, last):
        row = weights[i]
        total = np.float32(0)
        for j in range(x.shape[0]):
            total += np.float32(row[j]) * x[j]
        out[i] = total * scales[i]


@compiled_reordered
def add_columns(
    weights: Weights, offset: int, scales: Floats, x: Floats, chosen: Indices, out: Floats,
    first: int, last: int,
) -> None:  # fmt: skip
    """Set ``out = diag(s)·Σ_i x_i W[:, i]`` over chosen i, outputs first ≤ j < last of an input-major weight.

    # weights [d, ≥ offset + n], scales [n], x [d], chosen [k], out [n]
    """
    part = out[first:last]
    size = last - first
    start, end = offset + first, offset + last
    part[:] = np.float32(0)
    k = chosen.shape[0]
    i = 0
    while i + 16 <= k:
        a, b, c, d = chosen[i], chosen[i + 1], chosen[i + 2], chosen[i + 3]
        e, f, g, h = chosen[i + 4], chosen[i + 5], chosen[i + 6], chosen[i + 7]
        u, m, n, o = chosen[i + 8], chosen[i + 9], chosen[i + 10], chosen[i + 11]
        p, q, r, s = chosen[i + 12], chosen[i + 13], chosen[i + 14], chosen[i + 15]
        xa, xb, xc, xd = x[a], x[b], x[c], x[d]
        xe, xf, xg, xh = x[e], x[f], x[g], x[h]
        xu, xm, xn, xo = x[u], x[m], x[n], x[o]
        xp, xq, xr, xs = x[p], x[q], x[r], x[s]
        wa, wb, wc, wd = (
            weights[a, start:end], weights[b, start:end], weights[c, start:end], weights[d, start:end],
        )  # fmt: skip
        we, wf, wg, wh = (
            weights[e, start:end], weights[f, start:end], weights[g, start:end], weights[h, start:end],
        )  # fmt: skip
        wu, wm, wn, wo = (
            weights[u, start:end], weights[m, start:end], weights[n, start:end], weights[o, start:end],
        )  # fmt: skip
        wp, wq, wr, ws = (
            weights[p, start:end], weights[q, start:end], weights[r, start:end], weights[s, start:end],
        )  # fmt: skip
        for t in range(size):
            part[t] += (
                xa * np.float32(wa[t]) + xb * np.float32(wb[t])
                + xc * np.float32(wc[t]) + xd * np.float32(wd[t])
                + xe * np.float32(we[t]) + xf * np.float32(wf[t])
                + xg * np.float32(wg[t]) + xh * np.float32(wh[t])
                + xu * np.float32(wu[t]) + xm * np.float32(wm[t])
                + xn * np.float32(wn[t]) + xo * np.float32(wo[t])
                + xp * np.float32(wp[t]) + xq * np.float32(wq[t])
                + xr * np.float32(wr[t]) + xs * np.float32(ws[t])
            )  # fmt: skip
        i += 16
    while i < k:
        xa = x[chosen[i]]
        wa = weights[chosen[i], start:end]
        for j in range(size):
            part[j] += xa * np.float32(wa[j])
        i += 1
    for j in range(size):
        part[j] *= scales[first + j]


@compiled_parallel
def rows(weights: Weights, scales: Floats, x: Floats, out: Floats, threads: int) -> None:
    """Set ``out = W x`` from a row-major weight. # [n, d], [d] → [n]"""
    n = weights.shape[0]
    for t in prange(threads):
        dot_rows(weights, scales, x, out, n * t // threads, n * (t + 1) // threads)


@compiled_parallel
def chosen_rows(
    weights: Weights, scales: Floats, x: Floats, chosen: Indices, out: Floats, threads: int
) -> None:
    """Set ``out[i] = (W x)[chosen[i]]`` from a row-major weight. # [n, d], [d], [k] → [k]"""
    k = chosen.shape[0]
    for t in prange(threads):
        for i in range(k * t // threads, k * (t + 1) // threads):
            row = weights[chosen[i]]
            total = np.float32(0)
            for j in range(x.shape[0]):
                total += np.float32(row[j]) * x[j]
            out[i] = total * scales[chosen[i]]


@compiled_parallel
def chosen_columns(
    weights: Weights, scales: Floats, x: Floats, chosen: Indices, out: Floats, threads: int
) -> None:
    """Set ``out = Σ_i x_i W[:, i]`` over chosen i, from an input-major weight. # [d, n], [d], [k] → [n]"""
    n = weights.shape[1]
    for t in prange(threads):
        first, last = n * t // threads, n * (t + 1) // threads
        add_columns(weights, 0, scales, x, chosen, out, first, last)
