"""Lifetimes of experts in a cache: from their loading to their eviction, in tokens.

What is still resident when a sequence ends has lived at least until then: it is censored, not ended. Means
over ended stays alone would be too short, so survival is estimated as for any censored times (Kaplan and
Meier, 1958): ``S(d) = Π_{e≤d} (1 − ended_e / at_risk_e)``, at risk being the stays of at least e tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.residency.eviction import Eviction, check_capacity, next_uses, rule_code
from backend.residency.routing_record import RoutingRecord, Start
from backend.residency.trace import ExpertTrace


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """How long experts stayed in caches of one size under one rule.

    Attributes:
        ended: How many stays ended after d tokens, d from 0. # int64 [D]
        censored: How many were d tokens old when their sequence ended. # int64 [D]
    """

    ended: NDArray[np.int64]
    censored: NDArray[np.int64]

    @property
    def loads(self) -> int:
        """All stays."""
        return int(self.ended.sum() + self.censored.sum())

    @property
    def censored_share(self) -> float:
        """Share of the stays that had not ended."""
        return float(self.censored.sum()) / max(1, self.loads)

    def survival(self) -> NDArray[np.float64]:
        """Return the share of loaded experts that are still there d tokens later, d from 0. # [D]"""
        at_risk = np.cumsum((self.ended + self.censored)[::-1])[::-1]
        return np.asarray(np.cumprod(1 - self.ended / np.maximum(1, at_risk)), np.float64)

    def median(self) -> int | None:
        """Return the tokens after which half are gone, censoring accounted for; None if fewer ever are."""
        gone = np.flatnonzero(self.survival() <= 0.5)
        return int(gone[0]) if len(gone) else None

    def __add__(self, other: Lifetimes) -> Lifetimes:
        """Add the stays of another cache."""
        length = max(len(self.ended), len(other.ended))
        return Lifetimes(
            *(
                np.pad(a, (0, length - len(a))) + np.pad(b, (0, length - len(b)))
                for a, b in ((self.ended, other.ended), (self.censored, other.censored))
            )
        )


@dataclass(frozen=True, eq=False)
class Stays:
    """What one cache did over one sequence.

    Attributes:
        hits: Whether each access was served by the cache. # bool [A]
        loaded_at: The token at which each stay began. # int32 [S]
        evicted_at: The token at which it ended, the number of tokens if it had not. # int32 [S]
    """

    hits: NDArray[np.bool_]
    loaded_at: NDArray[np.int32]
    evicted_at: NDArray[np.int32]


def stays_of(trace: ExpertTrace, capacity: int, eviction: Eviction = "lru", *, seed: int = 0) -> Stays:
    """Walk one sequence with one cache of ``capacity`` experts, empty at first.

    Raises:
        UserError: The cache cannot serve a token.
    """
    from backend.residency import lifetime_kernels

    check_capacity(trace, capacity)
    rule, accesses = rule_code(eviction), len(trace.entries)
    hits = np.zeros(accesses, np.uint8)
    loaded, evicted = np.empty(accesses, np.int32), np.empty(accesses, np.int32)
    _, offsets, entries = trace.kernel
    found = lifetime_kernels.stays(
        offsets,
        entries,
        next_uses(trace, rule),
        trace.size,
        trace.tokens,
        capacity,
        rule,
        seed,
        hits,
        loaded,
        evicted,
    )
    return Stays(hits.astype(bool), loaded[:found], evicted[:found])


def lifetimes(
    traces: Iterable[ExpertTrace],
    capacity: int,
    eviction: Eviction = "lru",
    *,
    counted: Iterable[NDArray[np.bool_]] | None = None,
    seed: int = 0,
) -> Lifetimes:
    """Return how long experts stayed, over some sequences, each with an empty cache at its start.

    Args:
        traces: The sequences.
        capacity: C, in experts.
        eviction: The rule.
        counted: By sequence, at which tokens loads count; None for all. # bool [T]
        seed: Of the random rule.
    """
    total = Lifetimes(np.zeros(1, np.int64), np.zeros(1, np.int64))
    masks = iter(counted) if counted is not None else None
    for trace in traces:
        found = stays_of(trace, capacity, eviction, seed=seed)
        kept = np.ones(len(found.loaded_at), bool) if masks is None else next(masks)[found.loaded_at]
        over = found.evicted_at < trace.tokens
        age = found.evicted_at - found.loaded_at
        length = trace.tokens + 1
        total += Lifetimes(
            np.bincount(age[kept & over], minlength=length),
            np.bincount(age[kept & ~over], minlength=length),
        )
    return total


def lifetimes_in(
    record: RoutingRecord,
    capacity: int,
    eviction: Eviction,
    start: Start = "cold",
    *,
    place: int | None = None,
) -> Lifetimes:
    """Return how long experts stayed in caches of ``capacity`` slots, one a layer, over the tokens kept.

    Args:
        record: The routing, with selections.
        capacity: C, in experts of one layer.
        eviction: The rule.
        start: Whether loads count from the first token on, or only those of tokens that count.
        place: Of one layer only (its place in ``record.layers``).
    """
    chosen = record.routings if place is None else record.routings[place : place + 1]
    total = Lifetimes(np.zeros(1, np.int64), np.zeros(1, np.int64))
    for each in chosen:
        parts = each.sequences(record.kept_lengths)
        counted = None
        if start == "warm":
            late = record.counted[: record.tokens_kept][each.present]
            counted = np.split(late, np.cumsum([part.tokens for part in parts])[:-1])
        total += lifetimes(parts, max(capacity, 1), eviction, counted=counted)
    return total
