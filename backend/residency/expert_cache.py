"""A layer's cache of experts, and the choices that look at it: promotion and a lift of what is resident.

Source: Skliar et al., "Mixture of Cache-Conditional Experts", arXiv 2412.00099. A choice is sequential over
the tokens of one layer only, so with a cache a layer a whole sequence takes one call.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.residency.eviction import Eviction, new_keys, rule_code


def expert_capacity(share: float, experts: int, k: int, slots: int | None = None) -> int:
    """Return C, the cache slots of a layer.

    Args:
        share: Share of the N experts that fit, rounded down.
        experts: N.
        k: K, which have to fit at once.
        slots: C itself, in place of a share.

    Raises:
        UserError: Fewer slots than a token uses.
    """
    capacity = min(experts, int(share * experts + 1e-9)) if slots is None else min(slots, experts)
    if capacity < k:
        raise UserError(
            f"A cache of {capacity} of the layer's {experts} experts cannot serve a token that uses {k}; "
            f"give it at least {k} slots (a share of {k / experts:.3g})."
        )
    return capacity


class ExpertCache:
    """One layer's experts in fast memory, over one sequence; empty at first.

    Args:
        experts: N.
        capacity: C ≥ K, the experts that fit.
        eviction: ``lru``, ``lfu`` or ``random``.
        seed: Of the random rule.

    Attributes:
        resident: 1 for experts in fast memory. # uint8 [N]
        tokens: Tokens so far.
    """

    def __init__(self, experts: int, capacity: int, eviction: Eviction = "lru", seed: int = 0) -> None:
        self.capacity = capacity
        self.resident = np.zeros(experts, np.uint8)
        self.tokens = 0
        self._seed = seed
        self._rule = rule_code(eviction)
        self._key = new_keys(1, experts)[0]

    def choose(
        self,
        order: NDArray[np.int32],
        scores: NDArray[np.float32],
        k: int,
        *,
        lifts: NDArray[np.float32],
        most: NDArray[np.int64],
        top_j: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Choose the next tokens' experts, and let the cache follow.

        Per token: raise the scores of the first J ranks and of what is resident among the first M, take the
        K largest (ties: the better rank), count the misses with the old cache, then update it; r_1 is
        touched first and r_K last, and nothing of the token leaves while it is served.

        Args:
            order: Experts by rank. # [T, N]
            scores: By expert. # [T, N]
            k: K.
            lifts: What is added to a score; infinity for promotion: near experts come first. # [T]
            most: M, the ranks within which residents count as near. # [T]
            top_j: J, the first ranks that always count as near.

        Returns:
            The experts by rank # [T, K], and each token's misses # [T].
        """
        from backend.residency import expert_kernels

        tokens = len(order)
        chosen = np.empty((tokens, k), np.int32)
        misses = np.zeros(tokens, np.int64)
        expert_kernels.choose(
            np.ascontiguousarray(order, np.int32),
            np.ascontiguousarray(scores, np.float32),
            np.ascontiguousarray(lifts, np.float32),
            np.ascontiguousarray(most, np.int64),
            top_j,
            k,
            self.resident,
            self._key,
            self.tokens,
            self.capacity,
            self._rule,
            self._seed,
            chosen,
            misses,
        )
        self.tokens += tokens
        return chosen, misses
