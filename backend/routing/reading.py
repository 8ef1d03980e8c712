"""What a routed run used: experts by layer and token, and how far that is from the model's own choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from backend.residency import ExpertTrace
from backend.routing.policy import Choice
from backend.routing.routes import NONE, Routes, router_entropy


@dataclass(frozen=True, eq=False)
class LayerReading:
    """One layer of one sequence of T tokens.

    Attributes:
        chosen: Experts by rank, ``NONE`` behind them. # int32 [T, K]
        outside: Slots with an expert that is not among the model's own K. # int64 [T]
        dropped: The model's own experts that are not used. # int64 [T]
        lost_mass: Router probability of those. # float64 [T]
        lost_rank: By how many ranks the experts used lie behind the model's own, summed over slots. # [T]
        entropy: The router's entropy, nats. # float64 [T]
        experts: N.
    """

    chosen: Choice
    outside: NDArray[np.int64]
    dropped: NDArray[np.int64]
    lost_mass: NDArray[np.float64]
    lost_rank: NDArray[np.int64]
    entropy: NDArray[np.float64]
    experts: int

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many experts each token uses. # [T]"""
        counts: NDArray[np.int64] = (self.chosen != NONE).sum(axis=1)
        return counts

    @property
    def unchanged(self) -> NDArray[np.bool_]:
        """Which tokens use exactly the model's own experts. # bool [T]"""
        same: NDArray[np.bool_] = (self.outside == 0) & (self.dropped == 0)
        return same

    def trace(self) -> ExpertTrace:
        """Return the accesses in order, as caches take them."""
        offsets = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)
        return ExpertTrace(offsets, self.chosen[self.chosen != NONE].astype(np.int32), self.experts)


@dataclass
class RoutingReading:
    """All layers of one sequence, growing.

    Attributes:
        prompt: First tokens that are the prompt.
    """

    prompt: int = 0
    _parts: dict[int, list[LayerReading]] = field(default_factory=dict, repr=False)

    def add(self, layer: int, routes: Routes, chosen: Choice) -> LayerReading:
        """Take note of the next tokens of a layer; return what is noted of them."""
        found = _compared(routes, chosen)
        self._parts.setdefault(layer, []).append(found)
        return found

    @property
    def layers(self) -> dict[int, LayerReading]:
        """Each layer's reading so far."""
        return {layer: _joined(parts) for layer, parts in self._parts.items()}


def _compared(routes: Routes, chosen: Choice) -> LayerReading:
    used = np.zeros((routes.tokens, routes.experts + 1), bool)  # the last column takes empty slots
    np.put_along_axis(used, np.where(chosen == NONE, routes.experts, chosen).astype(np.int64), True, axis=1)
    ranked = np.take_along_axis(used, routes.order.astype(np.int64), axis=1)  # by rank [T, N]
    own = ranked[:, : routes.k]
    w = routes.ranked_probabilities[:, : routes.k]
    ranks = np.sort(np.where(ranked, np.arange(routes.experts), routes.experts), axis=1)[:, : routes.k]
    behind = np.where(ranks < routes.experts, ranks - np.arange(routes.k), 0)
    return LayerReading(
        chosen=chosen,
        outside=ranked[:, routes.k :].sum(axis=1),
        dropped=routes.k - own.sum(axis=1),
        lost_mass=np.where(own, 0.0, w.astype(np.float64)).sum(axis=1),
        lost_rank=behind.sum(axis=1),
        entropy=router_entropy(routes.probabilities),
        experts=routes.experts,
    )


def _joined(parts: Sequence[LayerReading]) -> LayerReading:
    if len(parts) == 1:
        return parts[0]
    return LayerReading(
        chosen=np.concatenate([each.chosen for each in parts]),
        outside=np.concatenate([each.outside for each in parts]),
        dropped=np.concatenate([each.dropped for each in parts]),
        lost_mass=np.concatenate([each.lost_mass for each in parts]),
        lost_rank=np.concatenate([each.lost_rank for each in parts]),
        entropy=np.concatenate([each.entropy for each in parts]),
        experts=parts[0].experts,
    )
