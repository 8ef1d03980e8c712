r"""Baselines that use fewer experts: a fixed number, or as many as the router's certainty asks for.

With ``w = softmax(z)`` over the N experts and ``r`` the experts by rank: pruning keeps r_1 … r_{K'}; top-p
the fewest that hold a probability of p (Huang et al., arXiv 2403.07652); Adaptive-K goes by the entropy
H = −Σ w ln w.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from backend.errors import UserError
from backend.routing.calibrated import CalibratedRouting
from backend.routing.policy import Choice, Rerouting, RoutingContext, refuse_more_than, routing
from backend.routing.routes import NONE, Routes, router_entropy
from backend.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.routing.anatomy import MoEAnatomy


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


def thresholds_for(mean: float, entropies: NDArray[np.float64], k: int) -> tuple[float, float]:
    """Return Adaptive-K's h₁ and h₂ that make a token use ``mean`` experts on average, on the tokens given.

    The share of tokens that use less than K is split evenly between one expert and half of K.

    Args:
        mean: The target, between the mean of 1 and ⌊K/2⌋, and K.
        entropies: Router entropies of tokens, nats.
        k: K.
    """
    saved = k - (1 + max(1, k // 2)) / 2
    share = min(1.0, max(0.0, (k - mean) / saved)) if saved else 0.0
    if share == 0:
        return 0.0, 0.0
    low, high = (float(each) for each in np.quantile(entropies, [share / 2, share]))
    return low, math.nextafter(high, math.inf) if share == 1 else high


@routing
class AdaptiveK(CalibratedRouting):
    """One, half or all of the K experts, by the router's entropy."""

    name = "adaptive_k"
    title = "Adaptive-K"
    summary = "Uses one expert where the router is certain, half of K where it is fairly so, else K."
    equation = (
        r"K' = 1 \text{ if } H < h_1,~\lfloor K/2 \rfloor \text{ if } H < h_2, \text{ else } K,\quad "
        r"H = -\textstyle\sum_i w_i \ln w_i"
    )
    paper = ""
    limits = "H lies between 0 and ln N; thresholds that suit one model say nothing of another, a mean does."
    sweep_setting = "high"
    may_use_fewer = True

    low: float = setting(0.5, "Entropy below which one expert is used.", unit="nats", symbol="h₁", ge=0)
    high: float = setting(2.0, "Entropy below which half of K are used.", unit="nats", symbol="h₂", ge=0)
    mean: float | None = setting(
        None,
        "Experts that a token uses on average: the thresholds that give it on the calibration text take the "
        "place of h₁ and h₂.",
        unit="experts a token", symbol="K̄", ge=1,
    )  # fmt: skip

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) must not exceed high ({self.high:g})")
        return self

    @property
    def fitted_on(self) -> str | None:
        """The calibration text, if a mean is asked for."""
        return None if self.mean is None else self.calibration

    @model_serializer(mode="wrap")
    def _what_counts(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what does not decide the result: thresholds beside a mean, or a text without one."""
        idle = ("calibration", "calibration_tokens") if self.mean is None else ("low", "high")
        return {name: value for name, value in serialise(self).items() if name not in idle}

    def fit(self, experts: int, k: int) -> list[str]:
        """Refuse a mean that no thresholds give."""
        half = max(1, k // 2)
        least = (1 + half) / 2
        if self.mean is not None and not least <= self.mean <= k:
            raise UserError(
                f"mean = {self.mean:g} cannot be had: as many tokens use 1 expert as use {half}, the others "
                f"{k}, so it has to lie between {least:g} and {k}."
            )
        return []

    def calibrate(self, anatomy: MoEAnatomy, batches: Iterable[Tensor]) -> dict[str, Tensor]:
        """Find the thresholds that give the mean on these tokens, the same for all layers."""
        import torch

        from backend.routing.engine import RoutedEngine
        from backend.routing.original import Original

        assert self.mean is not None
        engine = RoutedEngine(anatomy)
        read = (engine.hidden_states(Original(), ids)[1] for ids in batches)
        entropies = np.concatenate([layer.entropy for reading in read for layer in reading.layers.values()])
        found = thresholds_for(self.mean, entropies, anatomy.k)
        return {
            f"{layer}.{name}": torch.tensor(value, dtype=torch.float64)
            for layer in anatomy.layers
            for name, value in zip(("low", "high"), found, strict=True)
        }

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Keep 1, half of K or K ranks."""
        entropy = router_entropy(routes.probabilities)
        half = max(1, routes.k // 2)
        low, high = self.low, self.high
        if self.mean is not None:
            low, high = self.fitted(context, "low"), self.fitted(context, "high")
        counts = np.where(entropy < low, 1, np.where(entropy < high, half, routes.k))
        return first_ranks(routes, counts)
