"""Measured routings as points of a grid: a policy, its settings, the cache it ran with, what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from backend.evaluation.statistics import Estimate

ORIGINAL = "original"
SLOTS, EVICTION = "cache_slots", "eviction"
_CACHE = (SLOTS, EVICTION)


@dataclass(frozen=True)
class GridPoint:
    """One measured routing.

    Attributes:
        cell_id: Its cell.
        run_id: The run that measured it.
        policy: The routing's name.
        settings: All its settings.
        miss_rate: Measured with the cache it ran with.
        values: Every metric that was stored, by name.
        delta_nll: ΔNLL to the original routing, paired by window; None if not stored.
        how: How its loss was got.
    """

    cell_id: str
    run_id: str
    policy: str
    settings: dict[str, Any]
    miss_rate: float
    values: dict[str, float]
    delta_nll: Estimate | None
    how: str

    @property
    def slots(self) -> int | None:
        """Slots of the cache that the routing looked at; None if it looks at none."""
        found = self.settings.get(SLOTS)
        return None if found is None else int(found)

    @property
    def eviction(self) -> str | None:
        """That cache's rule."""
        return self.settings.get(EVICTION) if self.slots is not None else None

    @property
    def own(self) -> dict[str, Any]:
        """Its settings without the cache's."""
        return {key: value for key, value in self.settings.items() if key not in _CACHE}


def grid_points(rows: pd.DataFrame) -> list[GridPoint]:
    """Return rows of :func:`backend.results.routing.routing_points` as points."""
    return [_point(row) for _, row in rows.iterrows() if not math.isnan(row["miss_rate"])]


def at_slots(points: Iterable[GridPoint], slots: int, eviction: str) -> list[GridPoint]:
    """Return points of routings that look at the cache: those of the stored size nearest to ``slots``.

    Args:
        points: Points of any policies.
        slots: C, in experts of one layer.
        eviction: The rule; points of another one are left out.
    """
    aware = [point for point in points if point.slots is not None and point.eviction == eviction]
    if not aware:
        return []
    nearest = min({point.slots or 0 for point in aware}, key=lambda size: (abs(size - slots), size))
    return [point for point in aware if point.slots == nearest]


def settings_text(settings: dict[str, Any]) -> str:
    """Return settings for people: "λ 0.5, J 1"."""
    symbols = {"lam": "λ", "strength": "λ", "lambda_": "λ"}
    return ", ".join(f"{symbols.get(key, key)} {value}" for key, value in settings.items())


def _point(row: pd.Series) -> GridPoint:
    numbers = {str(name): row[name] for name in row.index if isinstance(row[name], int | float)}
    delta = None
    if not math.isnan(row["delta_nll"]):
        spread = row["delta_nll_stderr"]
        count = 0 if math.isnan(row["scored_tokens"]) else int(row["scored_tokens"])
        delta = Estimate(float(row["delta_nll"]), None if math.isnan(spread) else float(spread), count)
    return GridPoint(
        cell_id=str(row["cell_id"]),
        run_id=str(row["run_id"]),
        policy=str(row["policy"]),
        settings=json.loads(row["settings"]),
        miss_rate=float(row["miss_rate"]),
        values={name: float(value) for name, value in numbers.items() if not math.isnan(value)},
        delta_nll=delta,
        how=str(row["how"]),
    )
