"""The eviction rules, and one cache of a given size walked over a recorded trace.

The update of a cache c with C slots by a token that accesses m (arXiv 2412.01380): of the idle entries
``c ∧ ¬m`` as many are evicted as there is no room for, ``min(|idle|, |m| + |idle| − C)``, then m is loaded;
if |m| > C, the hits stay and the rest is loaded by falling score. Which idle entries leave:

* ``lru``: the least recently used;
* ``lfu``: the least often used; counts are kept after eviction;
* ``random``: drawn, seeded by the token and the entry, so that a smaller cache lies inside a larger one;
* ``belady``: the one needed last, known from the trace: a bound. Over columns it keeps the C nearest next
  uses of ``c ∪ m``, so what is read need not displace anything; experts stay until the token is served.

Ties go to the lower index, never to anything that depends on C. Experts of one token are touched in the
order of their ranks, the last is the most recent, and equal LFU counts fall back on that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.registry import did_you_mean
from backend.residency.trace import Trace, largest_set, score_bits

Eviction = Literal["lru", "lfu", "random", "belady"]
EVICTIONS: tuple[Eviction, ...] = get_args(Eviction)


def rule_code(eviction: str) -> int:
    """Return the kernels' number of an eviction rule; an unknown one raises ``UserError``."""
    codes = {"lru": 0, "lfu": 1, "random": 2, "belady": 3}
    if eviction not in codes:
        raise UserError(f"There is no eviction rule '{eviction}'; {did_you_mean(eviction, list(codes))}")
    return codes[eviction]


def new_keys(sequences: int, size: int) -> NDArray[np.int64]:
    """Return the eviction keys of entries that were never used. # [S, N]"""
    return np.tile(np.arange(size - 1, -1, -1, dtype=np.int64), (sequences, 1))


@dataclass(frozen=True, eq=False)
class Walk:
    """What one cache did over a trace.

    Attributes:
        capacity: C, in entries.
        accesses: Accesses of each token. # [T]
        misses: Of them, not in the cache as the token before left it. # [T]
        resident: What the cache holds in the end. # bool [N]
    """

    capacity: int
    accesses: NDArray[np.int64]
    misses: NDArray[np.int64]
    resident: NDArray[np.bool_]

    def miss_rate(self, start: int = 0) -> float:
        """Return the share of misses among the accesses of tokens from ``start`` on."""
        return float(self.misses[start:].sum() / max(1, self.accesses[start:].sum()))


def simulate(trace: Trace, capacity: int, eviction: Eviction = "lru", *, seed: int = 0) -> Walk:
    """Walk a trace with one cache, empty at first.

    Args:
        trace: What each token accesses.
        capacity: C, in entries; for experts at least as many as a token uses.
        eviction: The rule.
        seed: Of the random rule.

    Raises:
        UserError: The capacity does not fit the trace.
    """
    from backend.residency import step_kernels

    check_capacity(trace, capacity)
    rule = rule_code(eviction)
    misses = np.zeros(trace.tokens, np.int64)
    resident = np.zeros(trace.size, np.uint8)
    step_kernels.simulate(
        *trace.kernel,
        next_uses(trace, rule),
        score_bits(trace),
        resident,
        new_keys(1, trace.size)[0],
        capacity,
        rule,
        trace.ranked,
        seed,
        misses,
    )
    return Walk(capacity, trace.counts, misses, resident.astype(bool))


def check_capacity(trace: Trace, capacity: int) -> None:
    """Raise ``UserError`` unless a cache of this size can serve the trace."""
    if capacity < 0:
        raise UserError(f"A cache cannot have {capacity} slots.")
    if trace.ranked and capacity < largest_set(trace):
        raise UserError(
            f"A cache of {capacity} experts cannot serve a token that uses {largest_set(trace)}; give it at "
            "least as many slots."
        )


def next_uses(trace: Trace, rule: int) -> NDArray[np.int32]:
    """Return the token of each access's next use where the rule looks at it (Belady), else nothing."""
    from backend.residency import step_kernels

    if rule != step_kernels.BELADY:
        return np.empty(0, np.int32)
    uses = np.empty(int(trace.counts.sum()), np.int32)
    step_kernels.next_uses(*trace.kernel, trace.size, trace.tokens, uses)
    return uses
