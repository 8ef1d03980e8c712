"""Meters: what a side's token read and hit, by layer. Each describes the columns that it fills.

A method that brings more (experts and their misses) adds a meter to :func:`meters_for`; nothing else in the
store, on the page or in the exports knows what a column means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from backend.decoding.decoder import Decoding
from backend.generations.columns import DENSITY, TokenColumn
from backend.generations.readings import Reading
from backend.generations.routed import ExpertMeter
from backend.models.anatomy import Anatomy
from backend.routing.policy import RoutingPolicy
from backend.sparsity.policy import Policy, Tally


class Meter(Protocol):
    """Reads a side's last token."""

    def start(self, decoding: Any) -> None:
        """Take note of what the prompt counted, which is no token's; called once it was read."""
        ...

    def read(self, decoding: Any) -> list[Reading]:
        """Return the columns of the token that was fed last."""
        ...


class DensityMeter:
    """The share of the MLPs' weights that the token read."""

    def start(self, decoding: Decoding) -> None:
        """Note nothing: a token's masks are its own."""

    def read(self, decoding: Decoding) -> list[Reading]:
        """Return the density, weighted by the layers' weights."""
        layers = decoding.layer_densities()
        return [density_reading(decoding.model.engine.anatomy, layers)]


class TallyMeter:
    """What the policy's own state counted for the token: the growth of its tallies, and its gauges.

    Args:
        policy: The policy.
        value_bytes: Bytes of one weight as it runs.
    """

    def __init__(self, policy: Policy, value_bytes: int) -> None:
        self._policy, self._value_bytes = policy, value_bytes
        self._before: dict[tuple[int, str], Tally] = {}

    def start(self, decoding: Decoding) -> None:
        """Take the tallies that a sparse prompt left, so that the first token's growth is its own."""
        for place, context in enumerate(decoding.contexts()):
            for metric, tally in _by_metric(self._policy.tallies(context)).items():
                self._before[place, metric] = tally

    def read(self, decoding: Decoding) -> list[Reading]:
        """Return one column a tally or gauge."""
        by_metric: dict[str, list[Tally]] = {}
        for place, context in enumerate(decoding.contexts()):
            for metric, tally in _by_metric(self._policy.tallies(context)).items():
                before = self._before.get((place, metric))
                self._before[place, metric] = tally
                by_metric.setdefault(metric, []).append(_grown(tally, before))
            for metric, gauge in _by_metric(self._policy.gauges(context)).items():
                by_metric.setdefault(metric, []).append(gauge)
        return [self._reading(metric, tallies) for metric, tallies in by_metric.items()]

    def _reading(self, metric: str, tallies: list[Tally]) -> Reading:
        unit = tallies[0].unit.removesuffix("/token")
        words = metric.removesuffix("_per_token").replace("_", " ")
        share = tallies[0].whole is not None
        column = TokenColumn(metric, words[0].upper() + words[1:], unit, None, (0.0, 1.0) if share else None)
        total = sum(tallies[1:], tallies[0])
        return Reading(column, self._value(total), tuple(self._value(tally) for tally in tallies))

    def _value(self, tally: Tally) -> float:
        factor = self._value_bytes if tally.in_weights else 1
        return tally.part * factor / (1 if tally.whole is None else max(1, tally.whole))


def meters_for(policy: Policy | RoutingPolicy, value_bytes: int) -> list[Meter]:
    """Return the meters of a policy.

    Args:
        policy: The policy.
        value_bytes: Bytes of one weight as it runs.
    """
    if isinstance(policy, RoutingPolicy):
        return [ExpertMeter()]
    meters: list[Meter] = [DensityMeter()]
    return [*meters, TallyMeter(policy, value_bytes)] if counts(policy) else meters


def counts(policy: Policy) -> bool:
    """Tell whether a policy's state counts anything, so that its tokens are read one by one."""
    return type(policy).tallies is not Policy.tallies


def read_all(meters: Iterable[Meter], decoding: Any) -> list[Reading]:
    """Return all columns of the token that was fed last."""
    return [reading for meter in meters for reading in meter.read(decoding)]


def density_reading(anatomy: Anatomy, layers: Sequence[float]) -> Reading:
    """Return a token's density from its layers' densities."""
    weights = [mlp.weights for mlp in anatomy.mlps.values()]
    value = sum(d * w for d, w in zip(layers, weights, strict=True)) / sum(weights)
    return Reading(DENSITY, value, tuple(layers))


def _by_metric(tallies: Iterable[Tally]) -> dict[str, Tally]:
    """Return one tally a metric: a layer counts some of them at several sites."""
    found: dict[str, Tally] = {}
    for tally in tallies:
        found[tally.metric] = found[tally.metric] + tally if tally.metric in found else tally
    return found


def _grown(tally: Tally, before: Tally | None) -> Tally:
    if before is None:
        return tally
    whole = None if tally.whole is None or before.whole is None else tally.whole - before.whole
    return Tally(tally.metric, tally.part - before.part, whole, tally.unit, tally.in_weights)
