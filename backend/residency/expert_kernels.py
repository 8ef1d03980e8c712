"""Compiled walk of a layer's expert cache while experts are chosen; arrays as in ``step_kernels``."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.compiling import compiled
from backend.residency.step_kernels import scratch, touch, update


@compiled
def pick(
    order: Any, scores: Any, resident: Any, lift: float, most: int, top_j: int, k: int, near: Any, taken: Any
) -> None:
    """Mark in ``taken``, by rank, the K experts of one token.

    Near are the first J ranks and the residents among the first M. Both the near and the rest are in rank
    order already, so the K largest of ``z + lift · near`` are found by merging the two; ties go to the rank.
    An infinite lift takes all that are near first: promotion.
    """
    size = order.shape[0]
    for j in range(size):
        near[j] = j < top_j or (j < most and resident[order[j]])
        taken[j] = 0
    a = b = 0
    for _ in range(k):
        while a < size and not near[a]:
            a += 1
        while b < size and near[b]:
            b += 1
        if b >= size:
            first = True
        elif a >= size:
            first = False
        else:
            lifted = np.float32(scores[order[a]] + np.float32(lift))
            other = scores[order[b]]
            first = lifted > other or (lifted == other and a < b)
        if first:
            taken[a] = 1
            a += 1
        else:
            taken[b] = 1
            b += 1


@compiled
def choose(
    order: Any,
    scores: Any,
    lifts: Any,
    most: Any,
    top_j: int,
    k: int,
    resident: Any,
    key: Any,
    clock: int,
    capacity: int,
    rule: int,
    seed: int,
    chosen: Any,
    misses: Any,
) -> None:
    """Choose each token's K experts by what is resident, and let the cache follow, token by token.

    ``order``: experts by rank. # int32 [T, N]. ``scores``: by expert. # fp32 [T, N]. ``lifts``, ``most``: of
    each token. # fp32, int64 [T]. ``chosen``: filled by rank. # int32 [T, K]. ``misses``: filled. # int64 [T]
    """
    tokens, size = order.shape
    members, flags, buffer = scratch(size)
    near, taken = np.empty(size, np.uint8), np.empty(size, np.uint8)
    no_bits, no_uses = np.empty(0, np.int32), np.empty(0, np.int32)
    for t in range(tokens):
        pick(order[t], scores[t], resident, lifts[t], most[t], top_j, k, near, taken)
        count = 0
        for j in range(size):
            if taken[j]:
                expert = order[t, j]
                chosen[t, count] = expert
                members[count] = expert
                flags[expert] = 1
                misses[t] += 1 - resident[expert]
                count += 1
        touch(key, members, count, rule, True, clock + t, no_uses)
        update(resident, key, members, count, flags, no_bits, capacity, rule, True, clock + t, seed, buffer)
        for a in range(count):
            flags[members[a]] = 0
