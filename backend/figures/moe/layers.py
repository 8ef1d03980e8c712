"""Miss rates layer by layer, and the layers that miss most."""

from __future__ import annotations

from backend.figures.moe.miss_rates import RULE_STYLES, TITLES
from backend.figures.moe.origin import MEASURED
from backend.figures.palette import style_of
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series
from backend.residency import Eviction, RoutingRecord
from backend.residency.routing_record import Start


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
    stored: tuple[str, str, list[float]] | None = None,
    where: Provenance = MEASURED,
) -> FigureSpec:
    """Return each layer's miss rate under a rule, and Belady's bound on the same routing.

    Args:
        record: The routing.
        label: Whose routing it is.
        slots: C, in experts of one layer.
        rule: The rule.
        start: Whether caches begin empty.
        stored: A policy measured at its own cache size: (policy, name, rates by layer). # [L]
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
        policy, name, found = stored
        highest = max(highest, *found)
        series.append(
            Series(
                name=policy,
                label=name,
                style=style_of(policy),
                x=layers,
                y=tuple(100 * rate for rate in found),
                details=tuple(
                    f"Layer {layer:g}, {name}: {rate:.1%}, measured"
                    for layer, rate in zip(layers, found, strict=True)
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
        note="Measured. Each layer has a cache of its own, of the same number of experts.",
        provenance=where,
    )
