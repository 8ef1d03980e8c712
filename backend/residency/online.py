"""A cache that is walked while a model runs: what each token loads and evicts, known as it happens.

It is the cache of :func:`backend.residency.simulate` one step at a time, by the same compiled kernels, so
that a store that really loads experts misses exactly what the simulation of its selections misses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.residency.eviction import Eviction, new_keys, rule_code


@dataclass(frozen=True, eq=False)
class Step:
    """What one batch of accesses changed.

    Attributes:
        loaded: Accessed entries that were not resident, in the order of access. # [misses]
        evicted: Entries that left, by rising index. # [evicted]
    """

    loaded: NDArray[np.int64]
    evicted: NDArray[np.int64]


class OnlineCache:
    """One cache of experts, empty at first.

    Args:
        size: N, the experts that there are.
        capacity: C, the experts that fit.
        eviction: ``lru``, ``lfu`` or ``random``.
        seed: Of the random rule.

    Attributes:
        resident: 1 for experts in fast memory. # uint8 [N]
        batches: Batches served so far: the clock of the rules.

    Raises:
        UserError: The rule needs the future (Belady), is unknown, or there is no room for anything.
    """

    def __init__(self, size: int, capacity: int, eviction: Eviction = "lru", seed: int = 0) -> None:
        if eviction == "belady":
            raise UserError(
                "Belady's rule evicts what is needed last, which a cache that runs cannot know; choose lru, "
                "lfu or random (a recorded trace can be walked with it: `misscurve --policy belady`)."
            )
        self._rule = rule_code(eviction)
        if capacity < 1:
            raise UserError(f"A cache cannot have {capacity} slots.")
        self.capacity = min(capacity, size)
        self.seed = seed
        self.resident = np.zeros(size, np.uint8)
        self.batches = 0
        self._key = new_keys(1, size)[0]
        self._before = np.zeros(size, np.uint8)

    def access(self, members: NDArray[np.int64]) -> Step:
        """Serve one batch, a token's experts: none of them is evicted while it is served.

        Args:
            members: The experts, none twice, the highest rank first; the last counts as most recent. # [K]

        Raises:
            UserError: There are more of them than slots.
        """
        from backend.residency import step_kernels

        if len(members) > self.capacity:
            raise UserError(
                f"A cache of {self.capacity} experts cannot serve a token that uses {len(members)}; give it "
                "at least as many slots."
            )
        self._before[:] = self.resident
        step_kernels.step(
            members.astype(np.int32),
            self.resident,
            self._key,
            self.capacity,
            self._rule,
            self.batches,
            self.seed,
        )
        self.batches += 1
        loaded = members[self._before[members] == 0]
        return Step(loaded, np.flatnonzero(self._before & (1 - self.resident)))
