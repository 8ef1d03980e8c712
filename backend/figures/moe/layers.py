"""Miss rates layer by layer, and the layers that miss most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from backend.experiments.routing_records import RoutingInfo
from backend.figures.moe.grid import GridPoint
from backend.figures.moe.miss_rates import RULE_STYLES, TITLES
from backend.figures.moe.origin import MEASURED, with_oracle
from backend.figures.moe.sources import RoutingSource
from backend.figures.palette import style_of
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series
from backend.residency import Eviction, RoutingRecord
from backend.residency.routing_record import Start

Load = Callable[[RoutingInfo], RoutingRecord]


@dataclass(frozen=True)
class LayerLine:
    """A policy's miss rates beside the original routing's.

    Attributes:
        policy: Its name in the registry.
        label: Its name for people; one that looks at the cache says the size it was measured with.
        rates: By layer. # [L]
        measured: With the cache it ran with; else walked over its recorded routing.
    """

    policy: str
    label: str
    rates: list[float]
    measured: bool


def policy_line(
    source: RoutingSource,
    point: GridPoint,
    record: RoutingRecord,
    slots: int,
    rule: Eviction,
    start: Start,
    load: Load,
    measured: Callable[[str], dict[int, float]],
) -> LayerLine | None:
    """Return a policy's rates for the caches asked for; None if it is not known for them.

    A routing that does not look at the cache has its own record, exact for every cache. One that does was
    measured with its own size and start: its line says the size, and is of no other start.

    Args:
        source: The measured routings.
        point: The policy's point.
        record: The original routing, whose layers are drawn.
        slots: C, in experts of one layer.
        rule: The rule.
        start: Whether caches begin empty.
        load: Reads a record.
        measured: Reads a cell's stored miss rate of each layer.
    """
    if point.slots is None:
        info = source.infos.get(point.cell_id)
        own = None if info is None else load(info)
        if own is None or own.layers != record.layers or (0, rule, start) not in own.curves:
            return None
        return LayerLine(point.policy, point.title, rates_by_layer(own, slots, rule, start), False)
    if start != source.start or point.eviction != rule:
        return None
    rates = measured(point.cell_id)
    if not all(layer in rates for layer in record.layers):
        return None
    label = f"{point.title}, {point.slots} slots"
    return LayerLine(point.policy, label, [rates[layer] for layer in record.layers], True)


def rates_by_layer(record: RoutingRecord, slots: int, rule: Eviction, start: Start) -> list[float]:
    """Return each layer's miss rate with a cache of its own. # [L]"""
    places = range(len(record.layers))
    return [
        curve.miss_rate(max(slots, curve.smallest))
        for curve in (record.curves[place, rule, start] for place in places)
    ]


def worst_layers(rates: list[float], layers: tuple[int, ...], count: int = 3) -> list[tuple[int, float]]:
    """Return the layers with the highest miss rates, the worst first: (layer, rate)."""
    return sorted(zip(layers, rates, strict=True), key=lambda pair: (-pair[1], pair[0]))[:count]


def layer_figure(
    record: RoutingRecord,
    label: str,
    slots: int,
    rule: Eviction,
    start: Start,
    *,
    stored: LayerLine | None = None,
    where: Provenance = MEASURED,
) -> FigureSpec:
    """Return each layer's miss rate under a rule, and Belady's bound on the same routing.

    Args:
        record: The routing.
        label: Whose routing it is.
        slots: C, in experts of one layer.
        rule: The rule.
        start: Whether caches begin empty.
        stored: A policy beside it.
        where: Where the numbers came from.
    """
    layers = tuple(float(layer) for layer in record.layers)
    rules: tuple[Eviction, ...] = (rule,) if rule == "belady" else (rule, "belady")
    series, highest = [], 0.0
    for each in rules:
        rates = rates_by_layer(record, slots, each, start)
        highest = max(highest, *rates)
        series.append(
            Series(
                name=each,
                label=TITLES[each],
                style=RULE_STYLES[each],
                x=layers,
                y=tuple(100 * rate for rate in rates),
                details=tuple(
                    f"Layer {layer:g}, {TITLES[each]}: {rate:.1%}"
                    for layer, rate in zip(layers, rates, strict=True)
                ),
            )
        )
    if stored is not None:
        highest = max(highest, *stored.rates)
        got = "measured" if stored.measured else "walked over its record"
        series.append(
            Series(
                name=stored.policy,
                label=stored.label,
                style=style_of(stored.policy),
                x=layers,
                y=tuple(100 * rate for rate in stored.rates),
                details=tuple(
                    f"Layer {layer:g}, {stored.label}: {rate:.1%}, {got}"
                    for layer, rate in zip(layers, stored.rates, strict=True)
                ),
            )
        )
    mean = record.curve(rule, start).miss_rate(slots)
    return FigureSpec(
        title=f"Miss rate by layer with caches of {slots} experts, {label}",
        x=Axis(label="Layer", range=(min(layers) - 0.7, max(layers) + 0.7)),
        y=Axis(
            label="Miss rate", unit="% of experts used", better="lower", range=(0.0, 105 * max(highest, 0.01))
        ),
        series=tuple(series),
        baselines=(Baseline(value=100 * mean, label=f"{TITLES[rule]}, all layers {mean:.1%}"),),
        note="Recorded routing, misses walked exactly; each layer has a cache of its own, of the same number "
        "of experts."
        + (f" {stored.label}: measured with the cache it ran with." if stored and stored.measured else "")
        + " Belady's rule is an oracle: it knows the future.",
        provenance=with_oracle(where),
    )
