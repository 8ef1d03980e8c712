"""What a router said of a layer's tokens, as routing policies see it: plain arrays, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

NONE = -1
"""A slot without an expert, in choices."""


@dataclass(frozen=True, eq=False)
class Routes:
    """One layer's router over T consecutive tokens, N experts, K a token.

    Attributes:
        order: Experts by rank, r_1 first; the model's own choice are the first K. # int32 [T, N]
        scores: What they are ranked by, by expert: the logits for most families, −inf for an expert that the
            model does not allow. # fp32 [T, N]
        probabilities: w, how likely each expert is, by expert; sums to 1. # fp32 [T, N]
        k: K, the experts that a token uses.
    """

    order: NDArray[np.int32]
    scores: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    k: int

    @property
    def tokens(self) -> int:
        """T."""
        return int(self.order.shape[0])

    @property
    def experts(self) -> int:
        """N."""
        return int(self.order.shape[1])

    @cached_property
    def original(self) -> NDArray[np.int32]:
        """The model's own choice, by rank. # int32 [T, K]"""
        return self.order[:, : self.k]

    @cached_property
    def allowed(self) -> NDArray[np.int64]:
        """How many experts each token may choose from; they hold the first ranks. # [T]"""
        allowed: NDArray[np.int64] = np.isfinite(self.scores).sum(axis=1)
        return allowed

    @cached_property
    def ranked_probabilities(self) -> NDArray[np.float32]:
        """Each rank's w, r_1 first. # fp32 [T, N]"""
        return np.take_along_axis(self.probabilities, self.order, axis=1)

    def slice(self, first: int, end: int) -> Routes:
        """Return the tokens from ``first`` up to ``end``."""
        part = slice(first, end)
        return Routes(self.order[part], self.scores[part], self.probabilities[part], self.k)


def rank(scores: NDArray[np.float32], own: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the experts by rank: the model's own choice first, then by falling score, then by index.

    The model's choice comes first because, where scores tie, its own top-k decides what "original" means.

    Args:
        scores: # fp32 [T, N]
        own: The model's own experts, in any order. # [T, K]
    """
    behind = np.ones(scores.shape, bool)
    np.put_along_axis(behind, own, False, axis=1)
    falling = np.argsort(-scores, axis=1, kind="stable")
    first = np.argsort(np.take_along_axis(behind, falling, axis=1), axis=1, kind="stable")
    return np.ascontiguousarray(np.take_along_axis(falling, first, axis=1), np.int32)


def router_entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return H = −Σ w ln w of each token, nats. # [T, N] → [T]"""
    w = probabilities.astype(np.float64)
    logs = np.log(w, where=w > 0, out=np.zeros_like(w))
    entropy: NDArray[np.float64] = -(w * logs).sum(axis=1)
    return entropy
