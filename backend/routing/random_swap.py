"""Random swap: how much an expert of a given rank matters, as a control."""

from __future__ import annotations

import numpy as np

from backend.routing.policy import Choice, Rerouting, RoutingContext, refuse_more_than, routing
from backend.routing.routes import Routes
from backend.seeds import mixed_seed
from backend.settings import setting


@routing
class RandomSwap(Rerouting):
    """One of the K experts is replaced by a random one."""

    name = "random_swap"
    title = "Random swap"
    summary = "Replaces the expert of one rank by one drawn from those that the model did not choose."
    equation = r"S = \{r_1, \dots, r_K\} \setminus \{r_k\} \cup \{r_u\},\quad u \sim \mathcal{U}(K+1, N)"
    paper = ""
    limits = "A control: it shows what a wrong expert at that rank costs, and saves nothing."
    control = True
    sweep_setting = "rank"

    rank: int = setting(1, "Rank of the expert that is replaced.", symbol="k", ge=1)
    seed: int = setting(0, "Seed of the draws.", ge=0)

    def fit(self, experts: int, k: int) -> list[str]:
        """Refuse a rank that no chosen expert has."""
        refuse_more_than(k, self.rank, "rank =")
        return []

    def start(self, context: RoutingContext) -> np.random.Generator:
        """Return the layer's own draws for this sequence."""
        return np.random.default_rng(mixed_seed(self.seed, context.layer, context.sequence))

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Swap; tokens without an expert left to swap with stay as they are."""
        drawn = context.state.random(routes.tokens)
        others = routes.allowed - routes.k
        ranks = np.tile(np.arange(routes.k), (routes.tokens, 1))
        free = others > 0
        ranks[free, self.rank - 1] = routes.k + (drawn * others).astype(np.int64)[free]
        return np.take_along_axis(routes.order, np.sort(ranks, axis=1), axis=1)

    def follow(self, routes: Routes, context: RoutingContext) -> None:
        """Draw for the prompt too, so that what follows does not depend on how it was routed."""
        context.state.random(routes.tokens)
