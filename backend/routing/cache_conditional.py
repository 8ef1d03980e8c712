r"""Cache-conditional routing: prefer experts that are in fast memory already.

Source: Skliar et al., "Mixture of Cache-Conditional Experts for Efficient Mobile Device Inference",
arXiv 2412.00099. With the experts r by rank, those resident before the token C_t, and J ranks that are
always kept:

* promotion: r_1 … r_J, then the resident ones of rank J+1 … M, then the rest, each in rank order; S is the
  first K. **Max-Rank** fixes M; the **cumulative threshold** takes the fewest ranks that hold probability p;
* **Cache-Prior** adds λ·Δ to the score of r_1 … r_J and of what is resident; Δ is the spread of the scores,
  max − min, averaged over the tokens so far.

What is raised only ranks: weights come from the original logits. The caches are sequential only inside a
layer, so a whole sequence takes ONE forward pass and equals decoding it token by token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from backend.residency.expert_cache import ExpertCache, expert_capacity
from backend.routing.policy import Choice, Rerouting, RoutingContext, routing
from backend.routing.routes import Routes
from backend.seeds import mixed_seed
from backend.settings import setting

PAPER = "Skliar et al., arXiv 2412.00099"
EMA_DECAY = 0.99


@dataclass
class LayerCache:
    """One layer's cache over a sequence, and the spread of its scores so far.

    Attributes:
        cache: The experts in fast memory.
        misses: Misses of each token so far, one array a call.
        spread: Running value of Δ.
    """

    cache: ExpertCache
    misses: list[NDArray[np.int64]]
    spread: float = 0.0


class CacheConditional(Rerouting):
    """What the cache-conditional policies share: the cache of each layer, and the ranks always kept."""

    paper = PAPER
    looks_at_cache = True
    limits: ClassVar[str] = (
        "A result holds for its cache size and eviction rule alone. Each layer has a cache of its own, empty "
        "at a sequence's start. Misses among the first J ranks are a floor."
    )

    cache_share: float = setting(
        0.5, "Share of a layer's experts that fit in fast memory.", unit="share of experts", symbol="C/N",
        gt=0, le=1,
    )  # fmt: skip
    slots: int | None = setting(
        None, "Experts of a layer that fit, in place of cache_share.", unit="experts", symbol="C", ge=1
    )
    eviction: Literal["lru", "lfu", "random"] = setting("lru", "Which idle expert leaves a full cache.")
    top_j: int | None = setting(
        None,
        "First ranks that are always kept; by default 1 for models that use two experts, 2 for those that "
        "use more.",
        unit="ranks", symbol="J", ge=0,
    )  # fmt: skip
    seed: int = setting(0, "Seed of the random eviction.", ge=0)

    def kept_ranks(self, k: int) -> int:
        """Return J for a model that uses K experts."""
        return min(2, k - 1) if self.top_j is None else self.top_j

    def capacity(self, experts: int, k: int) -> int:
        """Return C; fewer slots than a token uses raise ``UserError``."""
        return expert_capacity(self.cache_share, experts, k, self.slots)

    def fit(self, experts: int, k: int) -> list[str]:
        """Refuse a cache below K; say when nothing can be re-routed."""
        self.capacity(experts, k)
        if self.kept_ranks(k) < k:
            return []
        return [
            f"{self.title} keeps the first {self.kept_ranks(k)} ranks and a token uses {k} experts, so it "
            "never changes anything; lower top_j."
        ]

    def start(self, context: RoutingContext) -> LayerCache:
        """Return an empty cache."""
        seed = mixed_seed(self.seed, context.layer, context.sequence)
        capacity = self.capacity(context.experts, context.k)
        return LayerCache(ExpertCache(context.experts, capacity, self.eviction, seed), [])

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Choose token by token, the cache following."""
        return self._walk(routes, context, self.lifts(routes, context), self.near_ranks(routes))

    def follow(self, routes: Routes, context: RoutingContext) -> None:
        """Let the cache follow tokens routed as the model does; the spread of scores goes on too."""
        self.lifts(routes, context)
        self._walk(routes, context, np.zeros(routes.tokens, np.float32), np.zeros(routes.tokens, np.int64))

    def lifts(self, routes: Routes, context: RoutingContext) -> NDArray[np.float32]:
        """Return what is added to the score of a near expert: infinity, it comes first. # [T]"""
        return np.full(routes.tokens, np.inf, np.float32)

    def near_ranks(self, routes: Routes) -> NDArray[np.int64]:
        """Return M, the ranks within which a resident expert is near. # [T]"""
        return routes.allowed

    def _walk(
        self,
        routes: Routes,
        context: RoutingContext,
        lifts: NDArray[np.float32],
        most: NDArray[np.int64],
    ) -> Choice:
        state: LayerCache = context.state
        chosen, misses = state.cache.choose(
            routes.order,
            routes.scores,
            routes.k,
            lifts=lifts,
            most=np.minimum(most, routes.allowed),
            top_j=min(self.kept_ranks(routes.k), routes.k),
        )
        state.misses.append(misses)
        return chosen


@routing
class MaxRank(CacheConditional):
    """Promotion of resident experts within the first M ranks."""

    name = "max_rank"
    title = "Max-Rank"
    summary = "Prefers experts in fast memory if they are among the first M ranks."
    equation = (
        r"S = \text{first } K \text{ of } \big(r_1..r_J,~\{r_j \in C_t : J < j \le M\},~\text{rest}\big)"
    )
    sweep_setting = "m"

    m: int = setting(
        16, "Ranks within which a resident expert is preferred; K and less changes nothing.", unit="ranks",
        symbol="M", ge=0,
    )  # fmt: skip

    def near_ranks(self, routes: Routes) -> NDArray[np.int64]:
        """M for every token. # [T]"""
        return np.full(routes.tokens, self.m, np.int64)


@routing
class CumulativeThreshold(CacheConditional):
    """Promotion within the ranks that hold a probability of p."""

    name = "cumulative_threshold"
    title = "Cumulative threshold"
    summary = "Prefers experts in fast memory among the first ranks that together hold probability p."
    equation = (
        r"M_t = \min\{m : \textstyle\sum_{j \le m} w_{r_j} \ge p\}~(p \ge 1: M_t = N),\quad "
        r"S = \text{Max-Rank}(M_t, J)"
    )
    sweep_setting = "p"

    p: float = setting(
        0.5, "Router probability of the ranks within which a resident expert is preferred.", symbol="p",
        ge=0, le=1,
    )  # fmt: skip

    def near_ranks(self, routes: Routes) -> NDArray[np.int64]:
        """Return the fewest ranks whose probabilities reach p; all if they never do. # [T]"""
        if self.p <= 0 or self.p >= 1:  # sums in fp32 reach 1 early or never, so 1 is all by definition
            return np.full(routes.tokens, routes.experts if self.p >= 1 else 0, np.int64)
        held = np.cumsum(routes.ranked_probabilities, axis=1, dtype=np.float64)
        ranks: NDArray[np.int64] = np.minimum(1 + (held < self.p).sum(axis=1), routes.experts)
        return ranks


@routing
class CachePrior(CacheConditional):
    """The scores of resident experts are raised before the K largest are taken."""

    name = "cache_prior"
    title = "Cache-Prior"
    summary = "Adds a share λ of the router's spread to the scores of experts in fast memory."
    equation = (
        r"z'_i = z_i + \lambda \Delta_{avg}\, [i \in C_t \lor i \in r_1..r_J],\quad S = T_K(z'),\quad "
        r"\Delta = \max z - \min z"
    )
    sweep_setting = "lambda_"

    lambda_: float = setting(
        0.2, "How much of the spread of scores a resident expert is given; 0 changes nothing.", symbol="λ",
        ge=0, le=1,
    )  # fmt: skip
    spread: Literal["mean", "ema", "own"] = setting(
        "mean",
        "Δ: the mean spread of the sequence's tokens so far, the token itself included; an exponential "
        "average (0.99); or the token's own.",
        symbol="Δ",
    )

    def lifts(self, routes: Routes, context: RoutingContext) -> NDArray[np.float32]:
        """λ·Δ of each token; the spread is of the scores that may be chosen. # [T]"""
        state: LayerCache = context.state
        scores = routes.scores.astype(np.float64)
        lowest = np.where(np.isfinite(scores), scores, np.inf).min(axis=1)
        own = scores.max(axis=1) - lowest
        if self.spread == "mean":
            sums = np.cumsum([state.spread, *own])[1:]  # one addition a token, however they are cut up
            spreads = sums / (state.cache.tokens + np.arange(1, routes.tokens + 1))
            state.spread = float(sums[-1]) if len(sums) else state.spread
        elif self.spread == "ema":
            spreads = _averaged(own, None if state.cache.tokens == 0 else state.spread)
            state.spread = float(spreads[-1]) if len(spreads) else state.spread
        else:
            spreads = own
        return np.asarray(self.lambda_ * spreads, np.float32)


def _averaged(values: NDArray[np.float64], before: float | None) -> NDArray[np.float64]:
    """Return the exponential average after each value; the first value begins it. # [T] → [T]"""
    found = np.empty_like(values)
    for t, value in enumerate(values):
        before = value if before is None else EMA_DECAY * before + (1 - EMA_DECAY) * value
        found[t] = before
    return found
