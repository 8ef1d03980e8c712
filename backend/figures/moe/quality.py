"""Quality against misses: what a routing that prefers cached experts costs, and Belady's bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from backend.figures.controls import is_control, named_control
from backend.figures.curves import title_of
from backend.figures.front import pareto_front
from backend.figures.metrics import QUALITY
from backend.figures.moe.grid import ORIGINAL, GridPoint, experts_used
from backend.figures.moe.origin import MEASURED, with_oracle
from backend.figures.moe.policies import strength_of
from backend.figures.palette import FRONT, style_of
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series

Cost = Literal["miss_rate", "misses_per_token", "miss_bytes_per_token"]
COSTS: dict[Cost, tuple[str, str, float]] = {
    "miss_rate": ("Miss rate", "% of experts used", 100.0),
    "misses_per_token": ("Experts loaded", "per token, all layers", 1.0),
    "miss_bytes_per_token": ("Loaded from Flash", "MB per token", 1e-6),
}
"""What a token's misses can be counted in: (name, unit, factor). Where K differs a miss rate is not fair."""


@dataclass(frozen=True)
class Placed:
    """A point of the figure.

    Attributes:
        point: What was measured.
        cost: Its misses at the cache that the figure is of, in units of the axis.
        exact: It does not look at the cache: its misses come from its record, at exactly that size.
    """

    point: GridPoint
    cost: float
    exact: bool


def quality_figure(
    placed: Sequence[Placed],
    label: str,
    *,
    quality: str = "delta_nll",
    cost: Cost = "miss_rate",
    slots: int,
    rule: str,
    asked: int | None = None,
    belady: float | None = None,
    where: Provenance = MEASURED,
) -> FigureSpec:
    """Return quality against misses at one cache size.

    Args:
        placed: The points.
        label: Whose routing it is.
        quality: ``perplexity``, ``delta_nll``, ``kl`` or ``agreement``.
        cost: What misses are counted in.
        slots: C of the figure, in experts of one layer.
        rule: The caches' rule, for people.
        asked: The cache size that was asked for, if the figure is of the stored size nearest to it.
        belady: The original routing's misses under Belady's rule, in units of the axis.
        where: Where the numbers came from.
    """
    metric, (name, unit, _) = QUALITY[quality], COSTS[cost]
    value = _reader(quality)
    known = [each for each in placed if not math.isnan(value(each.point))]
    used = experts_used([each.point for each in known])
    ranked = not (used and cost == "miss_rate")
    series = [
        _series(policy, known, quality, ranked) for policy in dict.fromkeys(p.point.policy for p in known)
    ]
    front = _front(known, quality) if ranked else None
    original = next((each for each in known if each.point.policy == ORIGINAL), None)
    bounds = [Baseline(value=belady, label="Belady", axis="x")] if belady else []
    if original is not None and quality != "delta_nll":
        bounds.append(Baseline(value=value(original.point), label="Original routing"))
    costs = [each.cost for each in known] + ([belady] if belady else [])
    high = 1.05 * max(costs, default=1.0)
    where = where if belady is None else with_oracle(where)
    return FigureSpec(
        title=f"{quality_label(quality)} against {name.lower()}, caches of {slots} experts, {label}",
        x=Axis(label=name, unit=unit, better="lower", range=(0.0, high)),
        y=Axis(label=quality_label(quality), unit=metric.unit, better=metric.better),
        series=(*((front,) if front else ()), *series),
        baselines=tuple(bounds),
        note=_note(known, slots, asked, rule, belady, ranked, used),
        provenance=where,
    )


def _note(
    known: Sequence[Placed],
    slots: int,
    asked: int | None,
    rule: str,
    belady: float | None,
    ranked: bool,
    used: tuple[float, float] | None,
) -> str:
    """Return how the points were got, at which cache, and what may not be compared."""
    said = [f"Quality measured; {rule} caches of {slots} experts a layer"]
    if asked not in (None, slots):
        said[0] += f", the stored size nearest to {asked}"
    said[0] += "."
    if any(each.exact for each in known):
        said.append("Routings that do not look at the cache: recorded, misses walked exactly.")
    other = sorted({p.point.slots for p in known if p.point.slots is not None} - {slots})
    if other:
        sizes = " and ".join(map(str, other))
        said.append(
            f"Routings that look at the cache: measured with caches of {sizes} experts, the nearest stored."
        )
    if used is not None:
        said.append(f"Points use {used[0]:.3g} to {used[1]:.3g} experts a token in a layer.")
        if not ranked:
            said.append(
                "Their miss rates are shares of different numbers, so no front is drawn; loads compare."
            )
    if any(each.point.delta_nll is not None for each in known):
        said.append("Error bars: ± one standard error of the paired difference, over windows.")
    if belady:
        said.append(
            "Belady's line is an oracle's, on the original routing: it bounds every method that keeps it."
        )
    if ranked:
        said.append("Grey points are dominated.")
    return " ".join(said)


def quality_label(quality: str) -> str:
    """Return a metric's name where it compares with the model's own routing: "KL(original‖policy)"."""
    if quality == "kl":
        return "KL(original‖policy)"
    return QUALITY[quality].label.replace("dense", "the original routing")


def _reader(quality: str) -> Callable[[GridPoint], float]:
    return lambda point: point.values.get(quality, math.nan)


def _front_flags(known: Sequence[Placed], quality: str) -> list[bool]:
    value = _reader(quality)
    usable = [each for each in known if not is_control(each.point.policy)]
    on_front = pareto_front(
        [each.cost for each in usable], [value(each.point) for each in usable], QUALITY[quality].better
    )
    flags = iter(on_front)
    return [not is_control(each.point.policy) and next(flags) for each in known]


def _front(known: Sequence[Placed], quality: str) -> Series | None:
    value = _reader(quality)
    best = [each for each, on in zip(known, _front_flags(known, quality), strict=True) if on]
    if len(best) < 2:
        return None
    pairs = sorted((each.cost, value(each.point)) for each in best)
    return Series(
        name="front",
        label="Pareto front",
        style=FRONT,
        kind="front",
        x=tuple(x for x, _ in pairs),
        y=tuple(y for _, y in pairs),
    )


def _series(policy: str, known: Sequence[Placed], quality: str, ranked: bool) -> Series:
    flags = _front_flags(known, quality) if ranked else [True] * len(known)
    value, metric = _reader(quality), QUALITY[quality]
    chosen = [(each, on) for each, on in zip(known, flags, strict=True) if each.point.policy == policy]
    chosen.sort(key=lambda pair: (pair[0].point.strength or 0.0, pair[0].cost))
    strengths = {each.point.strength for each, _ in chosen}
    swept = strength_of(policy) is not None and 1 < len(chosen) == len(strengths)
    return Series(
        name=policy,
        label=named_control(policy, title_of(policy)),
        style=style_of(policy),
        kind="line" if swept else "markers",
        x=tuple(each.cost for each, _ in chosen),
        y=tuple(value(each.point) for each, _ in chosen),
        y_err=tuple(_error(each.point, quality) for each, _ in chosen),
        ids=tuple(each.point.cell_id for each, _ in chosen),
        details=tuple(
            f"{each.point.title}\n{quality_label(quality)}: "
            f"{metric.show(value(each.point), _error(each.point, quality))}\nMiss rate "
            f"{each.point.miss_rate:.2%} with the cache it ran with"
            for each, _ in chosen
        ),
        faded=tuple(not on and not is_control(policy) for _, on in chosen),
    )


def _error(point: GridPoint, quality: str) -> float | None:
    """Return one standard error; perplexity's is that of the paired difference, on its own scale."""
    spread = None if point.delta_nll is None else point.delta_nll.stderr
    if quality == "perplexity":
        return None if spread is None else point.values["perplexity"] * spread
    return point.values.get(f"{quality}_stderr")
