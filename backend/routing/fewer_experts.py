r"""Baselines that use fewer experts: a fixed number, or as many as the router's certainty asks for.

With ``w = softmax(z)`` over the N experts and ``r`` the experts by rank: pruning keeps r_1 … r_{K'}; top-p
the fewest that hold a probability of p (Huang et al., arXiv 2403.07652); Adaptive-K goes by the entropy
H = −Σ w ln w.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from backend.routing.policy import Choice, Rerouting, RoutingContext, refuse_more_than, routing
from backend.routing.routes import NONE, Routes, router_entropy
from backend.settings import setting


def first_ranks(routes: Routes, counts: NDArray[np.int64]) -> Choice:
    """Return the first ``counts`` experts of each token. # [T] → [T, K]"""
    kept = np.arange(routes.k) < counts[:, None]
    return np.where(kept, routes.original, NONE).astype(np.int32)


@routing
class ExpertPruning(Rerouting):
    """The first K' of the K experts."""

    name = "expert_pruning"
    title = "Expert pruning"
    summary = "Uses the first K' experts of each token and drops the others."
    equation = r"S = \{r_1, \dots, r_{K'}\},\quad K' \le K"
    paper = ""
    limits = "It reads fewer experts; where they are renormalised, those left weigh more."
    sweep_setting = "experts"
    may_use_fewer = True

    experts: int = setting(1, "Experts that a token uses.", unit="experts a token", symbol="K'", ge=1)

    def fit(self, experts: int, k: int) -> list[str]:
        """Refuse more experts than the model uses."""
        refuse_more_than(k, self.experts, "experts =")
        return []

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Keep the first K' ranks."""
        return first_ranks(routes, np.full(routes.tokens, self.experts))


@routing
class TopP(Rerouting):
    """As many experts as hold a probability of p."""

    name = "top_p"
    title = "Top-p experts"
    summary = "Uses the fewest experts whose router probabilities add up to p, at most K."
    equation = (
        r"S = \{r_1, \dots, r_m\},\quad m = \min\{K, \min\{m : \textstyle\sum_{j \le m} w_{r_j} \ge p\}\}"
    )
    paper = "Huang et al., arXiv 2403.07652"
    limits = (
        "The paper trains the model for it; here it is applied as it is. p counts the probability over all N "
        "experts, so a flat router never gets there with K."
    )
    sweep_setting = "p"
    may_use_fewer = True

    p: float = setting(0.5, "Router probability that the experts have to hold.", symbol="p", ge=0, le=1)

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Keep the ranks that are needed; at least one."""
        held = np.cumsum(routes.ranked_probabilities[:, : routes.k - 1], axis=1, dtype=np.float64)
        return first_ranks(routes, 1 + (held < self.p).sum(axis=1))


@routing
class AdaptiveK(Rerouting):
    """One, half or all of the K experts, by the router's entropy."""

    name = "adaptive_k"
    title = "Adaptive-K"
    summary = "Uses one expert where the router is certain, half of K where it is fairly so, else K."
    equation = (
        r"K' = 1 \text{ if } H < h_1,~\lfloor K/2 \rfloor \text{ if } H < h_2, \text{ else } K,\quad "
        r"H = -\textstyle\sum_i w_i \ln w_i"
    )
    paper = ""
    limits = "H lies between 0 and ln N; thresholds that suit one model say nothing of another."
    sweep_setting = "high"
    may_use_fewer = True

    low: float = setting(0.5, "Entropy below which one expert is used.", unit="nats", symbol="h₁", ge=0)
    high: float = setting(2.0, "Entropy below which half of K are used.", unit="nats", symbol="h₂", ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not exceed high ({self.high:g})")
        return self

    @classmethod
    def for_mean(cls, entropies: Sequence[float] | NDArray[np.float32], k: int, mean: float) -> Self:
        """Return the thresholds that make a token use ``mean`` experts on average, on the tokens given.

        The share of tokens that use less than K is split evenly between one expert and half of K.

        Args:
            entropies: Router entropies of calibration tokens, nats.
            k: K.
            mean: The target, between the mean of 1 and ⌊K/2⌋, and K.
        """
        half = max(1, k // 2)
        saved = k - (1 + half) / 2
        share = min(1.0, max(0.0, (k - mean) / saved)) if saved else 0.0
        low, high = np.quantile(np.asarray(entropies, np.float64), [share / 2, share])
        if share == 0:
            low = high = 0.0
        elif share == 1:
            high = math.nextafter(float(high), math.inf)
        return cls(low=float(low), high=float(high))

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Keep 1, half of K or K ranks."""
        entropy = router_entropy(routes.probabilities)
        half = max(1, routes.k // 2)
        counts = np.where(entropy < self.low, 1, np.where(entropy < self.high, half, routes.k))
        return first_ranks(routes, counts)
