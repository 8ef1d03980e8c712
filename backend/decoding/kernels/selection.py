"""Exact top-k of one token's scores by radix selection: the same entries as ``sparsity.selection``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.compiling import compiled
from backend.decoding.kernels.linear import Floats, Indices


@compiled
def top_k(values: Floats, k: int, chosen: Indices, histogram: NDArray[np.int32]) -> None:
    """Write the indices of the k largest ``|values|`` in rising order, ties broken by the lower index.

    Magnitudes of floats rank as their bits do, so three passes over 11, 10 and 10 bits find the k-th largest.

    Args:
        values: Scores, their sign ignored. # [N]
        k: Entries kept, 1 ≤ k ≤ N.
        chosen: Where to. # at least [k]
        histogram: Scratch. # [2048]
    """
    size = values.shape[0]
    bits = values.view(np.uint32)
    magnitude = np.uint32(0x7FFFFFFF)
    threshold, decided = np.uint32(0), np.uint32(0)
    room = k
    for shift, width in ((20, 11), (10, 10), (0, 10)):
        buckets = 1 << width
        histogram[:buckets] = 0
        for i in range(size):
            value = bits[i] & magnitude
            if (value & decided) == threshold:
                histogram[(value >> np.uint32(shift)) & np.uint32(buckets - 1)] += 1
        bucket, above = buckets - 1, 0
        while above + histogram[bucket] < room:
            above += histogram[bucket]
            bucket -= 1
        room -= above
        threshold |= np.uint32(bucket << shift)
        decided |= np.uint32((buckets - 1) << shift)
    found = 0
    for i in range(size):
        value = bits[i] & magnitude
        if value > threshold:
            chosen[found] = i
            found += 1
        elif value == threshold and room > 0:
            chosen[found] = i
            found += 1
            room -= 1
