"""How long experts stay in their cache."""

from __future__ import annotations

import numpy as np

from backend.figures.moe.miss_rates import RULE_STYLES, TITLES
from backend.figures.moe.origin import MEASURED, with_oracle
from backend.figures.spec import Axis, FigureSpec, Provenance, Series
from backend.residency import Eviction, Lifetimes

RULES_SHOWN: tuple[Eviction, ...] = ("lru", "lfu", "belady")
BEYOND = "half-life beyond what was followed"
_MOST_POINTS = 300


def lifetime_figure(
    found: dict[Eviction, Lifetimes],
    label: str,
    slots: int,
    tokens: int,
    where: Provenance = MEASURED,
    *,
    of: int | None = None,
) -> FigureSpec:
    """Return the share of loaded experts that is still resident, against tokens since loading.

    Args:
        found: Lifetimes by rule.
        label: Whose routing it is.
        slots: C, in experts of one layer.
        tokens: Over how many tokens they were followed.
        where: Where the numbers came from.
        of: How many tokens the routing has in all, if they were not all followed.
    """
    series = []
    for rule, each in found.items():
        survival = each.survival()
        # What happens after the last stay was lost sight of is unknown; nothing is drawn there.
        last = int(np.flatnonzero(each.ended + each.censored).max(initial=0))
        days = np.unique(np.linspace(0, last, min(last + 1, _MOST_POINTS)).round().astype(int))
        median = each.median()
        said = f"half gone after {median} tokens" if median is not None else BEYOND
        series.append(
            Series(
                name=rule,
                label=f"{TITLES[rule]}: {said}",
                style=RULE_STYLES[rule],
                kind="curve",
                x=tuple(days.astype(float).tolist()),
                y=tuple((100 * survival[days]).tolist()),
                details=tuple(
                    f"{TITLES[rule]}: {100 * survival[d]:.1f} % still there {d} tokens later"
                    for d in days.tolist()
                ),
            )
        )
    shares = ", ".join(f"{TITLES[rule]} {each.censored_share:.0%}" for rule, each in found.items())
    cut = of is not None and tokens < of
    over = f"the first {tokens:,} of {of:,} tokens" if cut else f"{tokens:,} tokens"
    oracle = ""
    if "belady" in found:
        oracle = " Belady's rule is an oracle: it knows the future" + (
            f", here only up to the cut after {tokens:,} tokens." if cut else "."
        )
    return FigureSpec(
        title=f"Lifetimes of experts in caches of {slots}, {label}",
        x=Axis(label="Tokens since the expert was loaded", unit="tokens"),
        y=Axis(label="Still in the cache", unit="% of loaded experts", better="higher", range=(0.0, 102.0)),
        series=tuple(series),
        note=f"Recorded routing, walked over {over}, all layers, a cache each. What was still resident at "
        f"the end is censored (Kaplan–Meier), not counted as evicted: {shares} of the loads.{oracle}",
        provenance=with_oracle(where) if "belady" in found else where,
    )
