"""Every cache size at once: from one pass over a recorded trace, the misses of a cache of any size.

LRU, LFU with kept counts, Belady and the seeded random rule keep a smaller cache's content inside a larger
one's, so the distance of an access in one stack says which sizes hit. A token accesses its whole set at
once: distances are ranks in the stack as it stood BEFORE the token. (Mattson et al. 1970, "Evaluation
techniques for storage hierarchies", in the batch form of ``specs/dip.md``.)

This holds for masks and routings that do not look at the cache. Those that do (DIP-CA at γ < 1,
Cache-Prior) have to be run for each size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backend.residency.eviction import Eviction, next_uses, rule_code
from backend.residency.trace import Trace, largest_set, score_bits


@dataclass(frozen=True, eq=False)
class MissCurve:
    """Misses of one hook or layer by the capacity of its cache.

    Attributes:
        hits: Hits of a cache with C slots, C from 0 to N; rising. # int64 [N+1]
        accesses: All accesses counted.
        first_uses: Of them, to an entry never used before: misses at any size ("compulsory").
        tokens: Tokens counted.
        smallest: The smallest capacity there is a figure for: K for experts, 0 for columns.
    """

    hits: NDArray[np.int64]
    accesses: int
    first_uses: int
    tokens: int
    smallest: int = 0

    @property
    def size(self) -> int:
        """N, the number of entries."""
        return len(self.hits) - 1

    def misses(self, capacity: int) -> int:
        """Return the misses of a cache with ``capacity`` slots (N and more are the same)."""
        if capacity < self.smallest:
            raise ValueError(f"no figure below {self.smallest} slots")
        return self.accesses - int(self.hits[min(capacity, self.size)])

    def miss_rate(self, capacity: int) -> float:
        """Return misses over accesses."""
        return self.misses(capacity) / max(1, self.accesses)

    def miss_rates(self) -> dict[int, float]:
        """Return the miss rate of every capacity that has a figure."""
        return {slots: self.miss_rate(slots) for slots in range(self.smallest, self.size + 1)}

    def misses_per_token(self, capacity: int) -> float:
        """Return the entries that a token has to load on average."""
        return self.misses(capacity) / max(1, self.tokens)

    def __add__(self, other: MissCurve) -> MissCurve:
        """Add the curve of another hook or sequence with a cache of its own and as many entries."""
        if self.size != other.size:
            raise ValueError("curves of different numbers of entries cannot be added")
        return MissCurve(
            self.hits + other.hits,
            self.accesses + other.accesses,
            self.first_uses + other.first_uses,
            self.tokens + other.tokens,
            max(self.smallest, other.smallest),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the curve as plain values, small enough to be committed: never the trace."""
        return {
            "found_at": np.diff(self.hits).tolist(),
            "accesses": self.accesses,
            "first_uses": self.first_uses,
            "tokens": self.tokens,
            "smallest": self.smallest,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> MissCurve:
        """Return the curve that ``as_json`` described."""
        hits = np.cumsum([0, *content["found_at"]], dtype=np.int64)
        names = ("accesses", "first_uses", "tokens", "smallest")
        return cls(hits, *(int(content[name]) for name in names))


def total(curves: Iterable[MissCurve]) -> MissCurve:
    """Add curves: hooks with a cache of their own each, of the same number of slots."""
    return reduce(MissCurve.__add__, curves)


def miss_curve_of(
    trace: Trace, eviction: Eviction = "lru", *, counted: NDArray[np.bool_] | None = None, seed: int = 0
) -> MissCurve:
    """Return the misses of every cache size, exactly.

    Args:
        trace: What each token accesses.
        eviction: The rule.
        counted: Which tokens count, the others only warm the cache; None counts all: a cold start. # [T]
        seed: Of the random rule.
    """
    every, some = miss_curves_of(
        trace, eviction, np.ones(trace.tokens, bool) if counted is None else counted, seed
    )
    return every if counted is None else some


def miss_curves_of(
    trace: Trace, eviction: Eviction, counted: ArrayLike, seed: int = 0
) -> tuple[MissCurve, MissCurve]:
    """Return the misses of every cache size over all tokens, and over those that count, from one walk.

    Args:
        trace: What each token accesses.
        eviction: The rule.
        counted: Which tokens count for the second. # [T]
        seed: Of the random rule.
    """
    from backend.residency import stack_kernels

    rule, largest = rule_code(eviction), largest_set(trace)
    counted = np.ascontiguousarray(counted, bool)
    late = counted.view(np.uint8)
    found = np.zeros((2, trace.size), np.int64)  # tokens that do not count, tokens that do
    limit = trace.size
    if eviction == "lru":
        stack_kernels.recency_walk(*trace.kernel, trace.size, trace.tokens, trace.ranked, late, found)
        # Below the largest token's set a cache keeps hits and loads by score: what ages cannot tell.
        limit = 0 if trace.ranked else largest
    below = np.zeros_like(found)
    if limit:
        stack_kernels.priority_walk(
            *trace.kernel,
            next_uses(trace, rule),
            score_bits(trace),
            trace.size,
            trace.tokens,
            rule,
            trace.ranked,
            seed,
            late,
            limit,
            below,
        )
    smallest = largest if trace.ranked else 0

    def curve(rows: slice, counts: NDArray[np.int64]) -> MissCurve:
        hits = np.concatenate([[0], np.cumsum(found[rows].sum(axis=0))])
        hits[1 : limit + 1] = np.cumsum(below[rows, :limit].sum(axis=0))
        accesses = int(counts.sum())
        # With room for all N entries nothing is ever evicted: what misses then was never used before.
        return MissCurve(hits, accesses, accesses - int(hits[-1]), len(counts), smallest)

    return curve(slice(0, 2), trace.counts), curve(slice(1, 2), trace.counts[counted])
