"""Compiled walks that give every cache size at once; arguments as in ``backend.residency.step_kernels``."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.compiling import compiled
from backend.residency.step_kernels import BELADY, RANDOM, draw, fetch, load_key, scratch, touch

WAITING, PLACED = 1, 2
"""What becomes of a member's flag on the way down the stack."""


@compiled
def recency_walk(
    rows: Any, offsets: Any, entries: Any, size: int, tokens: int, ranked: bool, counted: Any, found: Any
) -> None:
    """LRU at every size that holds the largest token, in one pass.

    The stack lists the entries seen, latest first. ``found[counted[t], p]`` grows by the accesses to the
    entry at rank p of the stack as it stood BEFORE token t: hits of every cache with more than p slots, apart
    for the tokens that count (1) and those that do not (0). Then the token's whole set moves to the front.
    """
    members, flags, _ = scratch(size)
    stack, others = np.empty(size, np.int32), np.empty(size + 1, np.int32)
    seen = np.zeros(size, np.uint8)
    depth = count = 0
    for t in range(tokens):
        count = fetch(t, rows, offsets, entries, members, count, flags)
        old = count
        if depth < size:
            old = 0
            for a in range(count):
                old += seen[members[a]]
                seen[members[a]] = 1
        counts = counted[t]
        met = kept = p = 0
        end = depth if old < count else 0  # new entries push the whole stack down, old ones only a part
        while met < old or p < end:
            i = stack[p]
            flag = flags[i]
            found[counts, p] += flag
            met += flag
            others[kept] = i
            kept += 1 - flag
            p += 1
        depth += count - old
        for a in range(count):
            stack[a] = members[count - 1 - a] if ranked else members[a]
        stack[count : count + kept] = others[:kept]


@compiled
def _push(heap: Any, length: int, key: int, entry: int, heap_entries: Any) -> None:
    at = length
    while at > 0 and heap[(at - 1) >> 1] < key:
        heap[at], heap_entries[at] = heap[(at - 1) >> 1], heap_entries[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at], heap_entries[at] = key, entry


@compiled
def _pop(heap: Any, length: int, heap_entries: Any) -> int:
    """Remove and return the entry with the largest key."""
    best = heap_entries[0]
    key, entry = heap[length - 1], heap_entries[length - 1]
    at, child = 0, 1
    while child < length - 1:
        if child + 1 < length - 1 and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[at], heap_entries[at] = heap[child], heap_entries[child]
        at, child = child, 2 * child + 1
    heap[at], heap_entries[at] = key, entry
    return int(best)


@compiled
def priority_walk(
    rows: Any,
    offsets: Any,
    entries: Any,
    uses: Any,
    bits: Any,
    size: int,
    tokens: int,
    rule: int,
    ranked: bool,
    seed: int,
    counted: Any,
    limit: int,
    found: Any,
) -> None:
    """Any rule at every size up to ``limit``, in one pass.

    The first C entries of the stack are what a cache of C slots holds, since a smaller cache's content
    lies inside a larger one's (Mattson et al., 1970; here a token accesses its whole set at once). Going
    down the stack, ``heap`` holds what the caches so far had to give up; each place takes the best of it.
    ``found``: as in ``recency_walk``.
    """
    members, flags, order_keys = scratch(size)
    key = np.arange(size - 1, -1, -1).astype(np.int64)
    stack, renewed = np.empty(size, np.int32), np.empty(size, np.int32)
    heap, heap_entries = np.empty(size + 1, np.int64), np.empty(size + 1, np.int32)
    loads = np.empty(size, np.int32)
    bypass = rule == BELADY and not ranked
    depth = count = first = 0
    for t in range(tokens):
        count = fetch(t, rows, offsets, entries, members, count, flags)
        touch(key, members, count, rule, ranked, t, uses[first : first + count])
        first += count
        counts = counted[t]
        row = bits[min(t, bits.shape[0] - 1)]
        if row.shape[0] > 0:
            for a in range(count):
                order_keys[a] = -load_key(a, members[a], size, row)
            loads[:count] = members[:count][np.argsort(order_keys[:count])]
        else:
            loads[:count] = members[:count]
        length = at = 0
        if bypass:
            for a in range(count):
                _push(heap, length, key[members[a]], members[a], heap_entries)
                length += 1
        fresh = 0
        for p in range(limit):
            entry = stack[p] if p < depth else -1
            if entry >= 0 and flags[entry]:
                found[counts, p] += 1
            elif entry >= 0 and count < limit:  # else no place is left for idle entries
                if rule == RANDOM:
                    key[entry] = draw(seed, t, entry) * size + size - 1 - entry
                _push(heap, length, key[entry], entry, heap_entries)
                length += 1
            if p < count and not bypass:
                if entry < 0 or flags[entry] != WAITING:
                    while flags[loads[at]] == PLACED:
                        at += 1
                    entry = loads[at]
                flags[entry] = PLACED
            elif length > 0:
                entry = _pop(heap, length, heap_entries)
                length -= 1
            else:
                break
            renewed[p] = entry
            fresh = p + 1
        depth = fresh
        stack[:depth] = renewed[:depth]


@compiled
def reuse_gaps(rows: Any, offsets: Any, entries: Any, size: int, tokens: int, gaps: Any, stays: Any) -> None:
    """Count the tokens between one use of an entry and its next.

    ``gaps[g]``: accesses whose entry was last used g tokens before.
    ``stays[g]``: uses after which the entry is used again, or the trace ends, g tokens later.
    """
    members, flags, _ = scratch(size)
    last = np.full(size, -1, np.int64)
    count = 0
    for t in range(tokens):
        count = fetch(t, rows, offsets, entries, members, count, flags)
        for a in range(count):
            i = members[a]
            if last[i] >= 0:
                gaps[t - last[i]] += 1
                stays[t - last[i]] += 1
            last[i] = t
    for i in range(size):
        if last[i] >= 0:
            stays[tokens - last[i]] += 1
