"""Perplexity of a routing policy beside the model's original routing, and what its caches miss.

The reference that differences are paired with is the ORIGINAL routing of the same model on the same windows
of the same run; where fidelity says "dense", this says "original".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.evaluation.paired import PairedScores, as_measurement, predicting, targets, window_ids
from backend.evaluation.ranks import layer_metric
from backend.evaluation.scoring import DenseScores, score_dense, score_sparse
from backend.evaluation.statistics import estimate
from backend.evaluation.windows import Windows
from backend.residency import Eviction, ExpertTrace, simulate
from backend.residency.expert_cache import expert_capacity
from backend.routing.cache_conditional import CacheConditional
from backend.routing.engine import Calibration, RoutedEngine
from backend.routing.policy import RoutingPolicy, make_routing
from backend.routing.prefetch import GuessReading, guessing
from backend.routing.reading import RoutingReading
from backend.seeds import mixed_seed

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.events import Measurement

Start = Literal["cold", "warm"]
Guesses = dict[int, NDArray[np.int64]]
"""By layer, the experts guessed. # [T, K]"""
UNITS = {
    "miss_rate": "share of expert uses",
    "misses_per_token": "experts/token, all layers",
    "experts_per_token": "experts/token, mean over layers",
    "routing_change": "share of slots",
    "routing_agreement": "share of tokens and layers",
    "lost_mass": "router probability",
    "lost_rank": "ranks/slot",
    "router_entropy": "nats",
    "prefetch_recall": "share of expert uses",
    "prefetch_control": "share of expert uses",
    "prefetch_wasted": "experts/token, all layers",
}
"""What is counted of the routing itself, and its unit; ``miss_bytes_per_token`` follows from misses.

Prefetch: the experts used that each layer's router named on the input of the router before it (recall; not of
the first layer), on its own input (control: all, where routing is not changed), and those named and not used
(wasted).
"""


@dataclass(frozen=True)
class CacheSetup:
    """The caches that misses are counted for, one a layer, empty at each window's start.

    Attributes:
        share: Share of a layer's experts that fit.
        slots: Experts of a layer that fit, in place of a share.
        eviction: Which idle expert leaves.
        start: "cold" counts every token; "warm" only those after the prompt, which fills the caches.
    """

    share: float = 0.5
    slots: int | None = None
    eviction: Eviction = "lru"
    start: Start = "cold"

    def of(self, policy: RoutingPolicy) -> CacheSetup:
        """Return the policy's own caches, if it looks at any; they are the ones that it meets."""
        if not isinstance(policy, CacheConditional):
            return self
        return CacheSetup(policy.cache_share, policy.slots, policy.eviction, self.start)


@dataclass
class RoutingReference:
    """The original routing's scores of a text's windows, made once and shared by every cell of a run.

    Attributes:
        windows: The windows.
        scores: One entry a window, filled in as they are first needed.
    """

    windows: Windows
    scores: dict[int, DenseScores] = field(default_factory=dict)

    def of(self, engine: RoutedEngine, index: int) -> DenseScores:
        """Return the original routing's scores of one window, computing them the first time."""
        if index not in self.scores:
            import torch

            device = engine.model.device
            with torch.inference_mode():
                hidden, _ = self.run(engine, make_routing("original", {}), index)
                states = predicting(hidden, self.windows, index)
                self.scores[index] = score_dense(engine.head, states, targets(self.windows, index, device))
        return self.scores[index]

    def run(
        self, engine: RoutedEngine, policy: RoutingPolicy, index: int, calibration: Calibration | None = None
    ) -> tuple[Tensor, RoutingReading]:
        """Run one window under a policy; return its final hidden states # [1, W, d] and the experts used."""
        ids = window_ids(self.windows, index, engine.model.device)
        return engine.hidden_states(
            policy, ids, sequence=index, prompt=self.windows.prompt, calibration=calibration
        )


@dataclass(kw_only=True)
class RoutingFidelity(PairedScores):
    """Scores of the windows so far beside the original routing's, and what their experts cost.

    Attributes:
        cache: The caches that misses are counted for.
        expert_bytes: Bytes of one routed expert, by layer.
        traces: Each layer's accesses, one trace a window.
        lengths: Tokens of each window.
        counted: Which tokens count, one array a window.
        weights: What each window's value of a routing metric is weighed by.
        by_layer: Layer → (misses, accesses) of each window.
    """

    cache: CacheSetup
    expert_bytes: dict[int, int]
    traces: dict[int, list[ExpertTrace]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    counted: list[NDArray[np.bool_]] = field(default_factory=list)
    weights: dict[str, list[int]] = field(default_factory=dict)
    by_layer: dict[int, list[tuple[int, int]]] = field(default_factory=dict)

    def add_routing(self, reading: RoutingReading, sequence: int) -> None:
        """Add one window's experts."""
        layers = reading.layers
        tokens = len(next(iter(layers.values())).chosen)
        late = np.arange(tokens) >= (reading.prompt if self.cache.start == "warm" else 0)
        self.lengths.append(tokens)
        self.counted.append(late)
        misses = 0
        for index, layer in layers.items():
            trace = layer.trace()
            self.traces.setdefault(index, []).append(trace)
            capacity = expert_capacity(
                self.cache.share, layer.experts, layer.chosen.shape[1], self.cache.slots
            )
            walk = simulate(trace, capacity, self.cache.eviction, seed=self._seed(index, sequence))
            missed = int(walk.misses[late].sum())
            self.by_layer.setdefault(index, []).append((missed, int(layer.counts[late].sum())))
            misses += missed

        def summed(name: str) -> float:
            return float(sum(getattr(layer, name)[late].sum() for layer in layers.values()))

        uses, rows = int(summed("counts")), len(layers) * int(late.sum())
        self._note("miss_rate", misses / max(1, uses), uses)
        self._note("misses_per_token", misses / int(late.sum()), int(late.sum()))
        self._note("experts_per_token", uses / rows, rows)
        self._note("routing_change", summed("outside") / max(1, uses), uses)
        self._note("routing_agreement", summed("unchanged") / rows, rows)
        self._note("lost_mass", summed("lost_mass") / rows, rows)
        self._note("lost_rank", summed("lost_rank") / max(1, uses), uses)
        self._note("router_entropy", summed("entropy") / rows, rows)

    def add_guesses(self, early: Guesses, own: Guesses, reading: RoutingReading) -> None:
        """Add how many of one window's experts were guessed; nothing if its routers cannot be asked."""
        late = self.counted[-1]
        ahead, control = GuessReading(), GuessReading()
        for found, guesses in ((ahead, early), (control, own)):
            for layer, guessed in guesses.items():
                found.add(layer, guessed[late], reading.layers[layer].chosen[late].astype(np.int64))
        if ahead.used:
            self._note("prefetch_recall", ahead.recall(), sum(ahead.used.values()))
            self._note("prefetch_control", control.recall(), sum(control.used.values()))
            self._note("prefetch_wasted", ahead.wasted_per_token, int(late.sum()))

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored: quality, routing, and each layer's miss rate."""
        how = self.policy.how
        found = self.quality()
        for name, unit in UNITS.items():
            if name not in self.windows:
                continue
            value = estimate(self.windows[name], self.weights[name])
            found.append(as_measurement(name, value, unit, how))
        tokens = [int(each.sum()) for each in self.counted]
        loaded = [
            sum(self.by_layer[layer][w][0] * size for layer, size in self.expert_bytes.items()) / tokens[w]
            for w in range(len(tokens))
        ]
        found.append(as_measurement("miss_bytes_per_token", estimate(loaded, tokens), "B/token", how))
        for layer, windows in self.by_layer.items():
            rates = [missed / max(1, uses) for missed, uses in windows]
            value = estimate(rates, [uses for _, uses in windows])
            name = layer_metric("miss_rate", layer)
            found.append(as_measurement(name, value, UNITS["miss_rate"], how))
        return found

    def _note(self, metric: str, value: float, weight: int) -> None:
        self.windows.setdefault(metric, []).append(value)
        self.weights.setdefault(metric, []).append(weight)

    def _seed(self, layer: int, sequence: int) -> int:
        return mixed_seed(getattr(self.policy, "seed", 0), layer, sequence)


def evaluate_routing(
    engine: RoutedEngine,
    policy: RoutingPolicy,
    reference: RoutingReference,
    cache: CacheSetup,
    calibration: Calibration | None = None,
) -> Iterator[RoutingFidelity]:
    """Score a routing policy window by window.

    Between two windows the model is untouched, so the caller may use it for something else.

    Args:
        engine: The model.
        policy: The policy.
        reference: The original routing's scores of the same windows.
        cache: The caches that misses are counted for; a policy that looks at a cache brings its own.
        calibration: What the policy was fitted to.

    Yields:
        The growing result, once a window.

    Raises:
        UserError: The policy's settings or the caches do not fit the model.
    """
    import torch

    for note in engine.fit(policy):
        logging.getLogger(__name__).warning(note)
    sizes = {index: layer.expert_bytes for index, layer in engine.anatomy.layers.items()}
    result = RoutingFidelity(policy=policy, cache=cache.of(policy), expert_bytes=sizes)
    for index in range(len(reference.windows)):
        original = reference.of(engine, index)
        early, own = Guesses(), Guesses()
        layers = engine.anatomy.layers
        with (
            guessing(layers, early.__setitem__, required=False),
            guessing(layers, own.__setitem__, ahead=0, required=False),
        ):
            hidden, reading = reference.run(engine, policy, index, calibration)
        with torch.inference_mode():
            states = predicting(hidden, reference.windows, index)
            result.add(score_sparse(engine.head, states, original), original)
        result.add_routing(reading, index)
        result.add_guesses(early, own, reading)
        yield result


def joined(parts: list[ExpertTrace]) -> ExpertTrace:
    """Return traces of several sequences as one, one after the other."""
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[:-1] + first for part, first in zip(parts, ends, strict=False)]
    entries: Any = np.concatenate([part.entries for part in parts])
    return ExpertTrace(np.concatenate([*offsets, ends[-1:]]), entries, parts[0].size)
