"""The section of "Mixture of experts" on what re-routing costs: the policy, its strength, and the front."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from backend.errors import UserError
from backend.experiments.routing_records import RoutingInfo
from backend.figures import QUALITY
from backend.figures.curves import title_of
from backend.figures.moe import ORIGINAL, GridPoint, RoutingSource, at_slots, quality_figure, quality_finding
from backend.figures.moe.compared import cost_of, fair_cost, misses_of, placed_points
from backend.figures.moe.grid import nearest_stored
from backend.figures.moe.miss_rates import TITLES
from backend.figures.moe.policies import strength_of, symbol_of
from backend.figures.moe.quality import COSTS, Cost, Placed, quality_label
from backend.residency import RoutingRecord
from pages._shared.address import Address, place
from pages._shared.figures import show_figure
from pages._shared.moe_controls import Caches
from pages._shared.moe_data import record_of
from pages._shared.text import as_rise, with_error


@dataclass(frozen=True)
class Drawn:
    """What the figure shows.

    Attributes:
        placed: Its points.
        cost: What their misses are counted in.
        slots: C of the figure, in experts of one layer.
    """

    placed: list[Placed]
    cost: Cost
    slots: int


def chosen_point(address: Address, source: RoutingSource, caches: Caches) -> GridPoint | None:
    """Show the controls of the policy and its strength; return the stored point they name."""
    names = [name for name in source.policies if name != ORIGINAL]
    if not names:
        return None
    titles = {title_of(name): name for name in names}
    first = next((name for name in names if name == "cache_prior"), names[0])
    policy = titles[address.choice("Policy", list(titles), "policy", default=title_of(first))]
    points = [point for point in source.of(policy) if point.slots is None]
    points = points or at_slots(source.of(policy), caches.slots, caches.rule)
    if not points:
        st.caption(f"{title_of(policy)} was not measured under {TITLES[caches.rule]}; choose another rule.")
        return None
    by_name = _by_strength(policy, points)
    symbol = symbol_of(policy, strength_of(policy) or "") or "Point"
    chosen = by_name[address.steps(f"{symbol} (stored grid)", list(by_name), f"strength_{policy}")]
    if chosen.slots is not None and chosen.slots != caches.slots:
        st.caption(
            f"{title_of(policy)} looks at the cache, so its points are read from the stored grid: measured "
            f"with caches of {chosen.slots} experts, the nearest to {caches.slots}."
        )
    return chosen


def quality(
    address: Address,
    source: RoutingSource,
    info: RoutingInfo,
    caches: Caches,
    chosen: GridPoint | None,
    prefix: str = "",
) -> Drawn | None:
    """Show quality against misses, with the chosen point's figures above; return what was drawn.

    Its controls' names in the address begin with ``prefix``.
    """
    if not source.points:
        st.info("Only the original routing was recorded here; no policy was measured on this text yet.")
        return None
    record = record_of(info)
    with place():
        if chosen is not None:
            _read_out(source, chosen, record, caches)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        metrics = {quality_label(name): name for name in QUALITY}
        metric = metrics[address.choice("Quality (vertical)", list(metrics), f"{prefix}quality", width=260,
                                        default=list(metrics)[1])]  # fmt: skip
        costs: dict[str, Cost] = {f"{name} ({unit})": cost for cost, (name, unit, _) in COSTS.items()}
        fair = next(name for name, cost in costs.items() if cost == fair_cost(source, record))
        cost = costs[
            address.choice("Misses (horizontal)", list(costs), f"{prefix}cost", default=fair, width=300)
        ]
    slots = nearest_stored(source.points, caches.slots, caches.rule)
    placed = placed_points(source, cost, slots, caches.rule, record_of)
    if not placed:
        st.info(f"No routing was measured with {TITLES[caches.rule]} caches.")
        return None
    where = source.origin(info, [each.point for each in placed])
    belady = cost_of(record, cost, slots, "belady", source.start)
    spec = quality_figure(
        placed, source.label, quality=metric, cost=cost, slots=slots, rule=TITLES[caches.rule],
        asked=caches.slots, belady=belady, where=where,
    )  # fmt: skip
    show_figure(spec, "front", height=460)
    if slots != caches.slots:
        st.caption(
            f"Drawn for caches of {slots} experts, the stored size nearest to {caches.slots}: routings that "
            "look at the cache were measured with it, and the others are taken at the same size."
        )
    return Drawn(placed, cost, slots)


def gained(source: RoutingSource, record: RoutingRecord, caches: Caches) -> str | None:
    """Return the sentence on what re-routing gains at the nearest stored cache size, None without one."""
    aware = at_slots(source.points, caches.slots, caches.rule)
    if not aware:
        return None
    slots = aware[0].slots or caches.slots
    own = record.curve(caches.rule, source.start).miss_rate(slots)
    best = record.curve("belady", source.start).miss_rate(slots)
    said = quality_finding(aware, own, best)
    nearest = "" if slots == caches.slots else f", the measured size nearest to {caches.slots}"
    return None if said is None else f"With caches of {slots}{nearest}: {said}"


def guessed(source: RoutingSource) -> str | None:
    """Return the sentence on how many experts are known a layer early, None if it was not measured."""
    values = next(
        (p.values for p in source.points if p.policy == ORIGINAL and "prefetch_recall" in p.values), None
    )
    if values is None:
        return None
    return (
        "Asked on the input of the router before it, a layer's router names "
        f"{values['prefetch_recall']:.1%} of the experts that it will use (on its own input, the control, "
        f"{values['prefetch_control']:.0%}); "
        f"{values['prefetch_wasted']:.3g} experts a token would be loaded for nothing. Measured."
    )


def _by_strength(policy: str, points: list[GridPoint]) -> dict[str, GridPoint]:
    """Return points by their strength as text, or by their whole settings where that is not unique."""
    rising = sorted(points, key=lambda point: (point.strength or 0.0, point.title))
    strengths = [point.strength for point in rising]
    if None not in strengths and len(set(strengths)) == len(strengths):
        return {f"{point.strength:g}": point for point in rising}
    return {point.title: point for point in rising}


def _read_out(source: RoutingSource, chosen: GridPoint, record: RoutingRecord, caches: Caches) -> None:
    slots = chosen.slots or caches.slots
    own = record.curve(caches.rule, source.start).miss_rate(max(slots, record.experts_per_token))
    try:
        missed, bound = misses_of(source, chosen, caches.slots, caches.rule, record_of)
    except UserError as error:  # a damaged record of a routing that looks at the cache: its cell is sound
        st.error(str(error), icon=":material/error:")
        missed, bound = chosen.miss_rate, None
    st.markdown(
        f"**{chosen.title}**, {chosen.how}" + (f", caches of {slots} experts" if chosen.slots else "")
    )
    values = chosen.values
    with st.container(horizontal=True, key="chosen"):
        _metric("Miss rate, re-routed", f"{missed:.1%}", f"original {own:.1%}")
        if bound is not None:
            _metric("Belady, re-routed", f"{bound:.1%}", "bound on this routing")
        _metric("Perplexity", f"{values['perplexity']:.2f}" if "perplexity" in values else "–",
                f"{as_rise(chosen.delta_nll)} to the original")  # fmt: skip
        _metric("ΔNLL", with_error(chosen.delta_nll, sign=True), "nats/token, paired")
        if "experts_per_token" in values:
            _metric("Experts per token", f"{values['experts_per_token']:.3g}", "in a layer")
        if "routing_change" in values:
            _metric("Routing changed", f"{values['routing_change']:.1%}", "of slots outside the true top K")
        if "lost_mass" in values:
            _metric("Lost probability", f"{values['lost_mass']:.1%}", "of the router's mass")
        if "prefetch_recall" in values:
            _metric(
                "Prefetch recall",
                f"{values['prefetch_recall']:.1%}",
                f"{values['prefetch_wasted']:.3g} a token wasted",
            )


def _metric(label: str, value: str, aside: str) -> None:
    st.metric(label, value, aside, delta_color="off", delta_arrow="off", width="content")
