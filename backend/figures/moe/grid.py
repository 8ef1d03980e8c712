"""Measured routings as points of a grid: a policy, its settings, the cache it ran with, what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from backend.evaluation.statistics import Estimate
from backend.figures.moe.policies import CACHE_SETTINGS, policy_title, strength_of
from backend.methods import every_method

ORIGINAL = "original"
_AS_MANY = 0.005
"""Experts a token: nearer than this is the same number."""


@dataclass(frozen=True)
class GridPoint:
    """One measured routing.

    Attributes:
        cell_id: Its cell.
        run_id: The run that measured it.
        policy: The routing's name.
        settings: All its settings.
        slots: Slots of each layer's cache that the routing looked at; None if it looks at none.
        miss_rate: Measured with the cache it ran with.
        values: Every metric that was stored, by name.
        delta_nll: ΔNLL to the original routing, paired by window; None if not stored.
        how: How its loss was got.
    """

    cell_id: str
    run_id: str
    policy: str
    settings: dict[str, Any]
    slots: int | None
    miss_rate: float
    values: dict[str, float]
    delta_nll: Estimate | None
    how: str

    @property
    def eviction(self) -> str | None:
        """The rule of the cache that it looked at."""
        return str(self.settings.get("eviction", "lru")) if self.slots is not None else None

    @property
    def strength(self) -> float | None:
        """Its value of the setting that its policy is dragged by, None if it has none."""
        value = self.settings.get(strength_of(self.policy) or "")
        return float(value) if isinstance(value, int | float) else None

    @property
    def own(self) -> tuple[tuple[str, Any], ...]:
        """Its settings without the cache's: points with the same ones are of one routing."""
        return tuple(sorted((k, v) for k, v in self.settings.items() if k not in CACHE_SETTINGS))

    @property
    def title(self) -> str:
        """Its name for people: "Cache-Prior, λ 0.5"."""
        return policy_title(self.policy, self.settings)


def grid_points(rows: pd.DataFrame, experts: int) -> tuple[GridPoint, ...]:
    """Return rows of :func:`backend.results.routing.routing_points` as points.

    Args:
        rows: The rows, of one model.
        experts: N, of which caches hold a share.
    """
    known = (_point(row, experts) for _, row in rows.iterrows() if not math.isnan(row["miss_rate"]))
    # A routing that looks at no cache is one routing, whatever cache its misses were counted for.
    once = {(p.policy, str(sorted(p.settings.items()))): p for p in known}
    return tuple(once.values())


def stored_slots(points: Iterable[GridPoint], eviction: str) -> list[int]:
    """Return the cache sizes that routings which look at the cache were measured with, rising."""
    return sorted({p.slots for p in points if p.slots is not None and p.eviction == eviction})


def at_slots(points: Iterable[GridPoint], slots: int, eviction: str) -> list[GridPoint]:
    """Return points of routings that look at the cache: those of the stored size nearest to ``slots``.

    Args:
        points: Points of any policies.
        slots: C, in experts of one layer.
        eviction: The rule; points of another one are left out.
    """
    known = list(points)
    sizes = stored_slots(known, eviction)
    if not sizes:
        return []
    nearest = min(sizes, key=lambda size: (abs(size - slots), size))
    return [point for point in known if point.slots == nearest and point.eviction == eviction]


def nearest_stored(points: Iterable[GridPoint], slots: int, eviction: str) -> int:
    """Return the one cache size at which all points can stand: the stored one nearest to ``slots``.

    Routings that look at the cache are known at stored sizes only; the others are exact at any. Without any
    of the first it is ``slots`` itself.
    """
    aware = at_slots(points, slots, eviction)
    return slots if not aware or aware[0].slots is None else aware[0].slots


def experts_used(points: Iterable[GridPoint]) -> tuple[float, float] | None:
    """Return the fewest and the most experts that points use a token in a layer; None if all use as many.

    Where they differ, miss rates are shares of different numbers and do not compare; misses do.
    """
    known = [p.values["experts_per_token"] for p in points if "experts_per_token" in p.values]
    return (min(known), max(known)) if differ(known) else None


def differ(used: Sequence[float]) -> bool:
    """Return whether numbers of experts a token are not all the same."""
    return bool(used) and max(used) - min(used) >= _AS_MANY


def variants(points: Sequence[GridPoint]) -> dict[tuple[tuple[str, Any], ...], list[GridPoint]]:
    """Return the points of one policy by their own settings, by rising strength."""
    found: dict[tuple[tuple[str, Any], ...], list[GridPoint]] = {}
    for point in sorted(points, key=lambda p: (p.strength or 0.0, str(p.own), p.slots or 0)):
        found.setdefault(point.own, []).append(point)
    return found


def slots_of(policy: str, settings: dict[str, Any], experts: int) -> int | None:
    """Return the slots of the cache that a routing looks at; None if it looks at none."""
    methods = every_method()
    if policy not in methods or not methods[policy].looks_at_cache:
        return None
    if (slots := settings.get("slots")) is not None:
        return min(int(slots), experts)
    return min(experts, int(float(settings["cache_share"]) * experts + 1e-9))


def _point(row: pd.Series, experts: int) -> GridPoint:
    numbers = {str(name): row[name] for name in row.index if isinstance(row[name], int | float)}
    delta = None
    if not math.isnan(row["delta_nll"]):
        spread = row["delta_nll_stderr"]
        count = 0 if math.isnan(row["scored_tokens"]) else int(row["scored_tokens"])
        delta = Estimate(float(row["delta_nll"]), None if math.isnan(spread) else float(spread), count)
    policy, settings = str(row["policy"]), json.loads(row["settings"])
    return GridPoint(
        cell_id=str(row["cell_id"]),
        run_id=str(row["run_id"]),
        policy=policy,
        settings=settings,
        slots=slots_of(policy, settings, experts),
        miss_rate=float(row["miss_rate"]),
        values={name: float(value) for name, value in numbers.items() if not math.isnan(value)},
        delta_nll=delta,
        how=str(row["how"]),
    )
