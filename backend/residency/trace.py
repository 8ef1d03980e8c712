"""Traces: what each token of one hook or one layer accessed, in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Kernel = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int32]]
"""A trace as the kernels take it: bit rows or lists, the other one empty."""

_NO_ROWS = np.empty((0, 0), np.uint8)
_NO_OFFSETS = np.empty(0, np.int64)
_NO_ENTRIES = np.empty(0, np.int32)


@dataclass(frozen=True, eq=False)
class MaskTrace:
    """Masks of one hook as packed bit rows: a token accesses all its entries at once.

    Attributes:
        rows: One row a token, the first entry in the highest bit. # uint8 [T, ⌈N/8⌉]
        size: N, the number of entries (columns, neurons).
        scores: What the masks were chosen by, not negative; only needed for caches smaller than a token's
            set, which load by falling score (by rising index without). # fp32 [T, N] or None
    """

    rows: NDArray[np.uint8]
    size: int
    scores: NDArray[np.float32] | None = None
    ranked = False

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != (self.size + 7) // 8:
            raise ValueError(f"rows must be [T, {(self.size + 7) // 8}], not {self.rows.shape}")

    @classmethod
    def from_masks(cls, masks: Any, scores: Any = None) -> MaskTrace:
        """Pack masks.

        Args:
            masks: Anything numpy takes as booleans. # [T, N]
            scores: See the class. # [T, N]
        """
        kept = np.asarray(masks, dtype=bool)
        found = None if scores is None else np.ascontiguousarray(np.abs(scores), dtype=np.float32)
        return cls(np.packbits(kept, axis=1), kept.shape[1], found)

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.rows)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many entries each token accesses. # [T]"""
        counts: NDArray[np.int64] = np.bitwise_count(self.rows).sum(axis=1, dtype=np.int64)
        return counts

    @property
    def kernel(self) -> Kernel:
        """The trace as the kernels take it."""
        return np.ascontiguousarray(self.rows), _NO_OFFSETS, _NO_ENTRIES

    def members(self) -> Iterator[NDArray[np.int64]]:
        """Yield each token's entries, by rising index."""
        for row in self.rows:
            yield np.flatnonzero(np.unpackbits(row, count=self.size))


@dataclass(frozen=True, eq=False)
class ExpertTrace:
    """Experts of one layer (or of all, for a global cache), by rank: the last one counts as most recent.

    Attributes:
        offsets: Where each token's experts begin in ``entries``, and the end. # int64 [T+1]
        entries: Experts, r_1 first. # int32 [A]
        size: N, the number of experts.
    """

    offsets: NDArray[np.int64]
    entries: NDArray[np.int32]
    size: int
    ranked = True
    scores = None

    @classmethod
    def from_lists(cls, chosen: Sequence[Iterable[int]], size: int) -> ExpertTrace:
        """Make a trace of each token's experts.

        Args:
            chosen: For each token its experts, the highest rank first, none twice.
            size: Number of experts.
        """
        lists = [list(each) for each in chosen]
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int64)
        entries = np.array([expert for each in lists for expert in each], dtype=np.int32)
        if len(entries) and not 0 <= entries.min() <= entries.max() < size:
            raise ValueError(f"experts must be between 0 and {size - 1}")
        if any(len(set(each)) < len(each) for each in lists):
            raise ValueError("a token's experts must differ")
        return cls(offsets, entries, size)

    @property
    def tokens(self) -> int:
        """T."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many experts each token uses. # [T]"""
        return np.diff(self.offsets)

    @property
    def kernel(self) -> Kernel:
        """The trace as the kernels take it."""
        return _NO_ROWS, self.offsets, self.entries

    def members(self) -> Iterator[NDArray[np.int64]]:
        """Yield each token's experts, r_1 first."""
        for first, end in pairwise(self.offsets):
            yield self.entries[first:end].astype(np.int64)


Trace = MaskTrace | ExpertTrace


def largest_set(trace: Trace) -> int:
    """Return the most entries that any token accesses: k, or K."""
    return int(trace.counts.max(initial=0))


def score_bits(trace: Trace) -> NDArray[np.int32]:
    """Return the scores as integers of the same order, or one empty row. # [T, N] or [1, 0]"""
    if trace.scores is None:
        return np.empty((1, 0), np.int32)
    return trace.scores.view(np.int32)
