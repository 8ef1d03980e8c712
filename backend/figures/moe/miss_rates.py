"""Miss rate against cache size: exact where the routing does not look at the cache, else stored points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from backend.errors import UserError
from backend.figures.memory import RULE_TITLES
from backend.figures.moe.grid import GridPoint, differ, experts_used
from backend.figures.moe.origin import MEASURED, with_oracle
from backend.figures.palette import BLACK, BLUE, ORANGE, PURPLE, Style, style_of
from backend.figures.spec import Axis, FigureSpec, Provenance, Series
from backend.residency import Eviction, MissCurve, RoutingRecord
from backend.residency.routing_record import Start, sequence_curve, whole

Scope = Literal["per-layer", "global"]
TITLES: dict[str, str] = {**RULE_TITLES, "random": "Random", "belady": "Belady (oracle)"}
RULE_STYLES = {
    "lru": Style(colour=BLUE, marker="circle", dash="solid"),
    "lfu": Style(colour=ORANGE, marker="square", dash="dash"),
    "random": Style(colour=PURPLE, marker="x", dash="dot"),
    "belady": Style(colour=BLACK, marker="star", dash="dashdot"),
}
_MOST_POINTS = 260


def curve_in(record: RoutingRecord, scope: Scope, rule: Eviction, start: Start) -> MissCurve:
    """Return the misses of every cache size, a cache a layer or one for all.

    One cache for all layers is walked here if the record does not hold its curve.

    Raises:
        UserError: Nothing is counted after a warm start, or the selections that it would take are not kept.
    """
    if start == "warm" and not record.has_warm:
        raise UserError("This routing has no tokens that count after a warm start; choose a cold one.")
    if scope == "per-layer":
        if (0, rule, start) not in record.curves:
            raise UserError(f"This routing was recorded without the rule '{TITLES[rule]}'.")
        return record.curve(rule, start)
    if (rule, start) in record.global_curves:
        return record.global_curves[rule, start]
    if record.tokens_kept < record.tokens:
        raise UserError("This routing was recorded without one cache for all layers; choose per layer.")
    parts, counted = whole(record.routings, record.lengths, record.counted)
    return sequence_curve(parts, counted, rule, start)


def miss_figure(
    label: str,
    curves: Mapping[Eviction, MissCurve],
    *,
    scope: Scope = "per-layer",
    start: Start = "cold",
    others: Mapping[str, tuple[str, MissCurve]] | None = None,
    stored: Iterable[tuple[str, str, list[GridPoint]]] = (),
    log: bool = False,
    where: Provenance = MEASURED,
) -> FigureSpec:
    """Return miss rates against cache size.

    Args:
        label: Whose routing it is.
        curves: Its exact curves, by rule.
        scope: A cache a layer, or one for all.
        start: Whether caches begin empty.
        others: Exact curves of other routings that do not look at the cache: policy to (name, curve).
        stored: Policies that look at the cache: (policy, name, points), each point measured at its own size.
        log: Logarithmic miss rates.
        where: Where the numbers came from.
    """
    stored = list(stored)
    series = [
        _curve(f"{rule}", f"{TITLES[rule]}, original routing" if others or stored else TITLES[rule], curve,
               RULE_STYLES[rule])
        for rule, curve in curves.items()
    ]  # fmt: skip
    series += [
        _curve(policy, name, curve, style_of(policy)) for policy, (name, curve) in (others or {}).items()
    ]
    series += [_grid(policy, name, points) for policy, name, points in stored if points]
    size = max(curve.size for curve in curves.values())
    rates = [rate for line in series for rate in line.y if rate > 0]
    low, high = min(rates, default=0.1), max(rates, default=100.0)
    many = "one cache for all layers" if scope == "global" else "a cache a layer"
    grid = any(line.kind == "line" for line in series)
    return FigureSpec(
        title=f"Miss rate against cache size, {label}",
        x=Axis(
            label="Cache size, all layers together" if scope == "global" else "Cache size of a layer",
            unit="experts",
            better="lower",
            range=(0.0, 1.02 * size),
        ),
        y=Axis(
            label="Miss rate",
            unit="% of experts used",
            better="lower",
            log=log,
            range=(0.8 * low, 1.2 * high) if log else (0.0, 1.03 * high),
        ),
        series=tuple(series),
        note=f"Recorded routing, misses walked exactly at every size; {many}, {_start(start)}."
        + (" Points: routings that look at the cache, each measured with its own size." if grid else "")
        + _unequal([*curves.values(), *(curve for _, curve in (others or {}).values())], stored)
        + (
            " Belady's rule is an oracle: it knows the future and bounds every rule that keeps the routing."
            if "belady" in curves
            else ""
        ),
        provenance=with_oracle(where) if "belady" in curves else where,
    )


def _unequal(curves: Iterable[MissCurve], stored: Iterable[tuple[str, str, list[GridPoint]]]) -> str:
    """Return the warning about rates of unequal numbers of experts, "" if all use as many."""
    used = [curve.accesses / max(1, curve.tokens) for curve in curves]
    for _, _, points in stored:
        used += experts_used(points) or [p.values.get("experts_per_token", used[0]) for p in points[:1]]
    if not differ(used):
        return ""
    return (
        f" Routings here use {min(used):.3g} to {max(used):.3g} experts a token in a layer: their rates are "
        "shares of different numbers, so compare loads (quality against misses)."
    )


def _start(start: Start) -> str:
    return "counted from empty caches" if start == "cold" else "counted once the caches were filled"


def _curve(name: str, label: str, curve: MissCurve, style: Style) -> Series:
    count = curve.size - curve.smallest + 1
    slots = np.unique(np.linspace(curve.smallest, curve.size, min(count, _MOST_POINTS)).round().astype(int))
    rates = 100 * (curve.accesses - curve.hits[slots]) / max(1, curve.accesses)
    return Series(
        name=name,
        label=label,
        style=style,
        kind="curve",
        x=tuple(slots.astype(float).tolist()),
        y=tuple(rates.tolist()),
        details=tuple(
            f"{label}: {y:.2f} % with {x} experts" for x, y in zip(slots, rates.tolist(), strict=True)
        ),
    )


def _grid(policy: str, name: str, points: list[GridPoint]) -> Series:
    rising = sorted((point for point in points if point.slots is not None), key=lambda p: p.slots or 0)
    return Series(
        name=policy,
        label=name,
        style=style_of(policy),
        kind="line",
        x=tuple(float(point.slots or 0) for point in rising),
        y=tuple(100 * point.miss_rate for point in rising),
        ids=tuple(point.cell_id for point in rising),
        details=tuple(
            f"{name}: {100 * point.miss_rate:.2f} % with {point.slots} experts, measured" for point in rising
        ),
    )
