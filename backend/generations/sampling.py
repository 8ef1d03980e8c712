"""Drawing the next token: greedy, or by temperature and nucleus with numbers that all sides share.

The draw is by the inverse of the cumulative distribution over tokens in falling order of probability, with
one uniform number a place from the seed. Sides whose distributions are alike then draw alike, so that a
divergence is the policy's and not the dice's. Nucleus: Holtzman et al., arXiv 1904.09751.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


class Sampler:
    """Draws tokens.

    Args:
        temperature: 0 for the most likely token.
        top_p: Share of probability that the nucleus holds.
        seed: Of the uniform numbers.
        places: How many tokens may be drawn.
    """

    def __init__(self, temperature: float, top_p: float, seed: int, places: int) -> None:
        self.temperature, self.top_p = temperature, top_p
        self._uniform = np.random.default_rng(seed).random(places)

    def __call__(self, logits: Tensor, place: int) -> int:
        """Return the token of one place. ``logits``: # [V]"""
        if self.temperature == 0:
            return int(logits.argmax())
        p, order = (logits.double() / self.temperature).softmax(-1).sort(descending=True, stable=True)
        before = p.cumsum(0) - p
        p = p.where(before < self.top_p, 0.0)  # the token that crosses the share belongs to it
        reached = p.cumsum(0)
        drawn = int((reached <= float(self._uniform[place]) * float(reached[-1])).sum())
        return int(order[min(drawn, len(order) - 1)])
