"""Cache-aware choice: top-k of scores that are weighed down for what is not in the cache.

Source: Federici et al., arXiv 2412.01380: ``s'_i = s_i · (c_i + γ(1 − c_i))``, ``m = T_k(s')``.

It is sequential over the tokens of one hook only, so a whole sequence takes one call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.residency.eviction import Eviction, new_keys, rule_code


class HookCaches:
    """The caches of one hook, one a sequence, empty at first.

    Args:
        size: N, the hook's entries (columns).
        capacity: C, the columns that fit.
        eviction: ``lru``, ``lfu`` or ``random``.
        seeds: One a sequence, for the random rule. # S

    Attributes:
        resident: 1 for columns in fast memory. # uint8 [S, N]
        tokens: Tokens that each sequence has had.
        hits: Columns chosen that were resident, by sequence. # [S]
        accesses: Columns chosen, by sequence. # [S]
    """

    def __init__(self, size: int, capacity: int, eviction: Eviction, seeds: Sequence[int]) -> None:
        sequences = len(seeds)
        self.capacity = capacity
        self.seeds = tuple(seeds)
        self.resident = np.zeros((sequences, size), np.uint8)
        self.tokens = 0
        self.hits = np.zeros(sequences, np.int64)
        self.accesses = np.zeros(sequences, np.int64)
        self._rule = rule_code(eviction)
        self._keys = new_keys(sequences, size)

    def choose(
        self, scores: NDArray[np.float32], k: int, gammas: NDArray[np.float32], exempt: int = 0
    ) -> NDArray[np.uint8]:
        """Choose the next tokens' columns, and let the caches follow.

        Per token: weigh the scores with the cache as it is, take the k largest (ties: lower index), count
        the hits, then update the cache. Sequences run in parallel threads.

        Args:
            scores: Not negative. # [S, T, N]
            k: Columns kept a token.
            gammas: What scores of columns outside the cache are multiplied by. # [T] or [S, T]
            exempt: How many of the largest scores are never weighed down.

        Returns:
            The masks, 1 for columns kept. # [S, T, N]
        """
        from backend.residency import step_kernels

        sequences, tokens, size = scores.shape
        if (sequences, size) != self.resident.shape:
            raise ValueError(f"scores of shape {scores.shape} do not fit caches of {self.resident.shape}")
        rows = np.broadcast_to(np.asarray(gammas, np.float32), (sequences, tokens))
        masks = np.empty(scores.shape, np.uint8)

        def walk(row: int) -> Any:
            return step_kernels.select(
                np.ascontiguousarray(scores[row], np.float32),
                np.ascontiguousarray(rows[row]),
                exempt,
                min(k, size),
                self.resident[row],
                self._keys[row],
                self.tokens,
                self.capacity,
                self._rule,
                self.seeds[row],
                masks[row],
            )

        if sequences == 1:
            self.hits += walk(0)
        else:
            with ThreadPoolExecutor(min(sequences, os.cpu_count() or 1)) as threads:
                self.hits += list(threads.map(walk, range(sequences)))
        self.accesses += tokens * min(k, size)
        self.tokens += tokens
        return masks


def gamma_schedule(gamma: float, first: int, tokens: int, *, warm_up: bool = False) -> NDArray[np.float32]:
    """Return γ of each token, ``γ_t = 1 − (1 − γ)(1 − γ^{t/4})`` with a warm-up, else γ.

    Args:
        gamma: γ, in [0, 1].
        first: Index of the first of these tokens in its sequence.
        tokens: How many there are.
        warm_up: Begin at 1 (plain top-k) and fall to γ.
    """
    if not warm_up:
        return np.full(tokens, gamma, np.float32)
    t = np.arange(first, first + tokens, dtype=np.float64)
    return np.asarray(1 - (1 - gamma) * (1 - np.power(gamma, t / 4)), np.float32)


def column_capacity(share: float, size: int) -> int:
    """Return how many of ``size`` columns fit where a ``share`` of them does, rounded down."""
    return min(size, int(share * size + 1e-9))  # 0.29 · 100 is a little less than 29 in floating point
