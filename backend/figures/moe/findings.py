"""Sentences about a routing, made from its numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from backend.figures.moe.grid import ORIGINAL, GridPoint
from backend.figures.moe.layers import rates_by_layer, worst_layers
from backend.figures.moe.miss_rates import TITLES
from backend.figures.moe.traffic import balance_of
from backend.residency import Eviction, RoutingRecord
from backend.residency.routing_record import Start

BUDGET = 0.01
"""A rise of perplexity that a finding calls cheap: 1 %."""


def findings(record: RoutingRecord, slots: int, rule: Eviction, start: Start) -> list[str]:
    """Return what the original routing says at one cache size, a sentence each.

    Args:
        record: The routing.
        slots: C, in experts of one layer.
        rule: The caches' rule.
        start: Whether caches begin empty.
    """
    own = record.curve(rule, start).miss_rate(slots)
    share = slots / record.experts
    said = [
        f"With {slots} of {record.experts} experts cached in each layer ({share:.0%}), {TITLES[rule]} misses "
        f"**{own:.1%}** of the experts that tokens use."
    ]
    if rule != "belady" and (0, "belady", start) in record.curves:
        best = record.curve("belady", start).miss_rate(slots)
        if own > 0:
            said.append(
                f"A rule that knew the future (Belady, an oracle) would miss {best:.1%}: eviction alone can "
                f"save at most {1 - best / own:.0%} of the loads."
            )
    rates = rates_by_layer(record, slots, rule, start)
    worst = worst_layers(rates, record.layers)
    if rates and max(rates) > 1.2 * own > 0:
        named = ", ".join(f"{layer} ({rate:.0%})" for layer, rate in worst)
        said.append(f"The layers that miss most are {named}.")
    balance = balance_of(record)
    busiest = int(balance.imbalance.argmax())
    entropy = float(balance.entropy.mean())
    said.append(
        f"The load is {_evenness(entropy)} (entropy over ln N {entropy:.2f}): the busiest expert, in layer "
        f"{record.layers[busiest]}, takes {balance.imbalance[busiest]:.1f} times an even share."
    )
    return said


def best_within(points: Sequence[GridPoint], budget: float = BUDGET) -> GridPoint | None:
    """Return the point that misses least within a rise of perplexity, None if there is none.

    Args:
        points: Points at one cache size.
        budget: Rise of perplexity over the original routing, as a share of it.
    """
    limit = math.log1p(budget)
    cheap = [p for p in points if p.delta_nll is not None and p.delta_nll.value <= limit]
    loads = all("misses_per_token" in point.values for point in cheap)  # fair where K differs too
    return min(cheap, key=lambda p: p.values["misses_per_token"] if loads else p.miss_rate, default=None)


def quality_finding(
    points: Sequence[GridPoint], original: float, belady: float | None, budget: float = BUDGET
) -> str | None:
    """Return what re-routing gains within a budget of quality, None if nothing does.

    Args:
        points: Points of routings that look at the cache, at one size of it.
        original: The original routing's miss rate at that size.
        belady: The same under Belady's rule.
        budget: Rise of perplexity, as a share.
    """
    best = best_within([point for point in points if point.policy != ORIGINAL], budget)
    if best is None or best.delta_nll is None or not original:
        return None
    rise = math.expm1(best.delta_nll.value)
    percent = f"{100 * rise:+.2f}".replace("-", "−")
    spread = best.delta_nll.stderr
    within = f" ± {100 * math.exp(best.delta_nll.value) * spread:.2f}" if spread is not None else ""
    said = (
        f"**{best.title}** brings the miss rate from {original:.1%} to **{best.miss_rate:.1%}** "
        f"({1 - best.miss_rate / original:.0%} fewer loads) for a perplexity {percent}{within} % over the "
        "original routing's."
    )
    if belady is not None:
        side = "below" if best.miss_rate < belady else "above"
        said += f" That is {side} the {belady:.1%} that Belady's rule reaches on the original routing."
    return said


def _evenness(entropy: float) -> str:
    return "nearly even" if entropy > 0.95 else "uneven" if entropy > 0.8 else "very uneven"
