"""One token through a Llama-style attention block, its key and value kept in a cache.

``h += W_o · attention(rope(norm(W_q n)), rope(norm(W_k n)), W_v n)`` with ``n = rms_norm(h)``: grouped
queries, optional biases and norms of queries and keys (Qwen2, Qwen3), a window that ends at the token.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from backend.compiling import compiled_parallel, compiled_reordered
from backend.decoding.kernels.linear import Floats, Weights, dot_rows


@compiled_reordered
def rms_norm(h: Floats, weight: Floats, epsilon: float, out: Floats) -> None:
    """Set ``out = w ⊙ h / sqrt(mean(h²) + ε)``. # [d]"""
    total = np.float32(0)
    for i in range(h.shape[0]):
        total += h[i] * h[i]
    scale = np.float32(1.0 / math.sqrt(total / h.shape[0] + epsilon))
    for i in range(h.shape[0]):
        out[i] = weight[i] * (h[i] * scale)


@compiled_reordered
def add(values: Floats, h: Floats) -> None:
    """Add ``values`` to ``h`` in place. # [d]"""
    for i in range(h.shape[0]):
        h[i] += values[i]


@compiled_reordered
def rotate(head: Floats, cosines: Floats, sines: Floats) -> None:
    """Turn one head's query or key by its position (rotary embedding, halves). # [d_h]"""
    half = head.shape[0] // 2
    for i in range(half):
        first, second = head[i], head[i + half]
        head[i] = first * cosines[i] - second * sines[i]
        head[i + half] = second * cosines[i + half] + first * sines[i + half]


@compiled_reordered
def attend(query: Floats, keys: Floats, values: Floats, scale: float, scores: Floats, out: Floats) -> None:
    """Set ``out = softmax(scale·K q) V``. # query [d_h], keys and values [T, d_h], scores [T], out [d_h]"""
    tokens = keys.shape[0]
    largest = np.float32(-math.inf)
    for t in range(tokens):
        key = keys[t]
        score = np.float32(0)
        for i in range(query.shape[0]):
            score += query[i] * key[i]
        scores[t] = score * np.float32(scale)
        largest = max(largest, scores[t])
    total = np.float32(0)
    for t in range(tokens):
        scores[t] = math.exp(scores[t] - largest)
        total += scores[t]
    out[:] = np.float32(0)
    for t in range(tokens):
        share = scores[t] / total
        value = values[t]
        for i in range(out.shape[0]):
            out[i] += share * value[i]


@compiled_parallel
def attention_step(
    h: Floats, norm: Floats, epsilon: float,
    wq: Weights, sq: Floats, bq: Floats, wk: Weights, sk: Floats, bk: Floats,
    wv: Weights, sv: Floats, bv: Floats, wo: Weights, so: Floats, bo: Floats,
    q_norm: Floats, k_norm: Floats, cosines: Floats, sines: Floats,
    keys: Floats, values: Floats, position: int, first_seen: int, scale: float,
    n: Floats, q: Floats, kv: Floats, scores: Floats, mixed: Floats, out: Floats, threads: int,
) -> None:  # fmt: skip
    """Run one token through the block, added to the residual stream ``h`` in place. # [d]

    ``norm`` # [d] and ε are the block's norm. The projections are row-major with scales and biases:
    ``wq`` # [H·d_h, d], ``wk`` and ``wv`` # [G·d_h, d], ``wo`` # [d, H·d_h]. An empty bias, ``q_norm`` or
    ``k_norm`` # [d_h] stands for none. ``cosines`` and ``sines`` # [d_h] are of this position. The token's
    key and value are written into the cache ``keys``, ``values`` # [G, T_max, d_h] at ``position``, from 0;
    it attends to positions from ``first_seen``, scores times ``scale``. Scratch: ``n`` # [d], ``q``
    # [H·d_h], ``kv`` # [2·G·d_h], ``scores`` # [H, T_max], ``mixed`` # [H·d_h], ``out`` # [d].
    """
    groups, width = keys.shape[0], keys.shape[2]
    heads = q.shape[0] // width
    rms_norm(h, norm, epsilon, n)
    kv_size = groups * width
    for t in prange(threads):
        size = q.shape[0]
        dot_rows(wq, sq, n, q, size * t // threads, size * (t + 1) // threads)
        dot_rows(wk, sk, n, kv[:kv_size], kv_size * t // threads, kv_size * (t + 1) // threads)
        dot_rows(wv, sv, n, kv[kv_size:], kv_size * t // threads, kv_size * (t + 1) // threads)
    if bq.shape[0]:
        add(bq, q)
    if bk.shape[0]:
        add(bk, kv[:kv_size])
    if bv.shape[0]:
        add(bv, kv[kv_size:])
    for g in range(groups):
        key = kv[g * width : (g + 1) * width]
        if k_norm.shape[0]:
            rms_norm(key, k_norm, epsilon, key)
        rotate(key, cosines, sines)
        keys[g, position] = key
        values[g, position] = kv[kv_size + g * width : kv_size + (g + 1) * width]
    shared = heads // groups
    for head in prange(heads):
        query = q[head * width : (head + 1) * width]
        if q_norm.shape[0]:
            rms_norm(query, q_norm, epsilon, query)
        rotate(query, cosines, sines)
        group = head // shared
        attend(
            query, keys[group, first_seen : position + 1], values[group, first_seen : position + 1], scale,
            scores[head], mixed[head * width : (head + 1) * width],
        )  # fmt: skip
    for t in prange(threads):
        size = out.shape[0]
        dot_rows(wo, so, mixed, out, size * t // threads, size * (t + 1) // threads)
    if bo.shape[0]:
        add(bo, out)
    add(out, h)
