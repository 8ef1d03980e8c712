"""Which of a policy's measured routings stand beside others, and what each of them misses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from backend.figures.moe.findings import BUDGET, best_within
from backend.figures.moe.grid import ORIGINAL, GridPoint, at_slots, experts_used, variants
from backend.figures.moe.layers import Load
from backend.figures.moe.quality import COSTS, Cost, Placed
from backend.figures.moe.sources import RoutingSource
from backend.residency import Eviction, MissCurve, RoutingRecord
from backend.residency.routing_record import Start


def cost_of(
    record: RoutingRecord, cost: Cost, slots: int, rule: Eviction, start: Start = "cold"
) -> float | None:
    """Return what a recorded routing misses at any cache size, in the units of the figure's axis."""
    if cost == "miss_rate":
        found: float | None = record.curve(rule, start).miss_rate(max(slots, record.experts_per_token))
    elif cost == "misses_per_token":
        found = record.misses_per_token(slots, rule, start)
    else:
        found = record.miss_bytes_per_token(slots, rule, start)
    return None if found is None else found * COSTS[cost][2]


def placed_points(source: RoutingSource, cost: Cost, slots: int, rule: Eviction, load: Load) -> list[Placed]:
    """Return every measured routing at one cache size: exactly, or of the nearest size it was measured with.

    Args:
        source: The measured routings.
        cost: What misses are counted in.
        slots: C, in experts of one layer; :func:`nearest_stored` gives one at which all points stand.
        rule: The caches' rule; routings that look at a cache of another rule are left out, and so are
            records that were made without it.
        load: Reads a record.
    """
    found = []
    for point in (*_blind(source), *at_slots(source.points, slots, rule)):
        if point.slots is not None:
            value = point.values.get(cost)
            spent = None if value is None else value * COSTS[cost][2]
        else:
            record = load(source.infos[point.cell_id])
            known = (0, rule, source.start) in record.curves
            spent = cost_of(record, cost, slots, rule, source.start) if known else None
        if spent is not None:
            found.append(Placed(point, spent, point.slots is None))
    return found


def fair_cost(source: RoutingSource, record: RoutingRecord) -> Cost:
    """Return what misses are best counted in: where routings use unequal numbers of experts, no rate."""
    if experts_used(source.points) is None:
        return "miss_rate"
    return "miss_bytes_per_token" if all(record.bytes_by_layer) else "misses_per_token"


def misses_of(
    source: RoutingSource, point: GridPoint, slots: int, rule: Eviction, load: Load
) -> tuple[float, float | None]:
    """Return a routing's miss rate, and Belady's on that same routing; None if it was not recorded.

    One that looks at the cache was measured with its own cache, and both are of that one.
    """
    info = source.infos.get(point.cell_id)
    if info is None:
        return point.miss_rate, None
    record = load(info)
    size = max(slots if point.slots is None else point.slots, record.experts_per_token)
    known = (0, "belady", source.start) in record.curves
    bound = record.curve("belady", source.start).miss_rate(size) if known else None
    if point.slots is not None or (0, rule, source.start) not in record.curves:
        return point.miss_rate, bound
    return record.curve(rule, source.start).miss_rate(size), bound


def exact_curves(
    source: RoutingSource, chosen: GridPoint | None, rule: Eviction, load: Load
) -> dict[str, tuple[str, MissCurve]]:
    """Return the miss curve of one routing of each other policy that does not look at the cache."""
    found = {}
    for policy in source.policies:
        points = [point for point in _blind(source) if point.policy == policy]
        if points and policy != ORIGINAL:
            shown = _shown(points, chosen)
            record = load(source.infos[shown.cell_id])
            if (0, rule, source.start) in record.curves:
                found[policy] = shown.title, record.curve(rule, source.start)
    return found


def stored_lines(
    source: RoutingSource, chosen: GridPoint | None, rule: Eviction
) -> list[tuple[str, str, list[GridPoint]]]:
    """Return one routing of each policy that looks at the cache, at every cache size it was measured with.

    Of the chosen point's policy it is the chosen one, of others the one that misses least within a rise of
    perplexity of 1 %.
    """
    found = []
    for policy in source.policies:
        points = [p for p in source.of(policy) if p.slots is not None and p.eviction == rule]
        if points:
            shown = _shown(points, chosen)
            found.append((policy, shown.title, variants(points)[shown.own]))
    return found


def _blind(source: RoutingSource) -> Iterable[GridPoint]:
    """Return the points of routings that do not look at the cache and whose selections were recorded."""
    return (point for point in source.points if point.slots is None and point.cell_id in source.infos)


def _shown(points: Sequence[GridPoint], chosen: GridPoint | None) -> GridPoint:
    if chosen is not None and chosen.policy == points[0].policy:
        return next((point for point in points if point.own == chosen.own), points[0])
    least = min(points, key=lambda p: float("inf") if p.delta_nll is None else p.delta_nll.value)
    return best_within(points, BUDGET) or least
