"""The compiled walk that tells how long experts stay; arguments as in ``backend.residency.step_kernels``."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.compiling import compiled
from backend.residency.step_kernels import fetch, scratch, touch, update


@compiled
def stays(
    offsets: Any,
    entries: Any,
    uses: Any,
    size: int,
    tokens: int,
    capacity: int,
    rule: int,
    seed: int,
    hits: Any,
    loaded_at: Any,
    evicted_at: Any,
) -> int:
    """Walk a ranked trace with one cache, empty at first; return how often something was loaded.

    ``hits[a]``: whether access a was served by the cache. # uint8 [A]
    ``loaded_at[s]``, ``evicted_at[s]``: the tokens at which stay s began and ended; ``evicted_at`` is the
    number of tokens for what is still there. Stays are in no order. # int32 [A]
    """
    no_rows, no_bits = np.empty((0, 0), np.uint8), np.empty(0, np.int32)
    members, flags, buffer = scratch(size)
    key = np.arange(size - 1, -1, -1).astype(np.int64)
    resident, before = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    since = np.zeros(size, np.int32)
    count = first = found = 0
    for t in range(tokens):
        count = fetch(t, no_rows, offsets, entries, members, count, flags)
        for a in range(count):
            hits[first + a] = resident[members[a]]
        touch(key, members, count, rule, True, t, uses[first : first + count])
        before[:] = resident
        update(resident, key, members, count, flags, no_bits, capacity, rule, True, t, seed, buffer)
        for i in range(size):
            if before[i] and not resident[i]:
                loaded_at[found], evicted_at[found] = since[i], t
                found += 1
            elif resident[i] and not before[i]:
                since[i] = t
        first += count
    for i in range(size):
        if resident[i]:
            loaded_at[found], evicted_at[found] = since[i], tokens
            found += 1
    return found
