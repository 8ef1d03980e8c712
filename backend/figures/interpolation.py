"""Values between measured points: exact where there is one, else monotone interpolation, else nothing.

A curve's windows are interpolated one by one, and only then averaged, so that a value between two points
has a paired standard error like a measured one. PCHIP (Fritsch and Carlson, 1980) never overshoots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from backend.evaluation.statistics import Estimate, estimate
from backend.figures.curves import Curve
from backend.figures.metrics import COST, SPEED
from backend.sparsity import METHODS

State = Literal["measured", "interpolated", "cannot reach", "not measured"]
WINDOW_METRICS = ("delta_nll", "kl", "agreement")
TOLERANCE = 0.002
"""A stored point this near (as a share of the dense model's cost) is shown as it is: k is a whole number,
so a measured density misses its target by a little."""

Windows = Mapping[str, pd.DataFrame]
"""Metric → one row a cell, one column a window, as :func:`backend.results.queries.window_values` gives it."""


@dataclass(frozen=True)
class Reading:
    """What a curve says at one cost.

    Attributes:
        curve: The curve.
        state: Whether there is a stored point, one between two, or none.
        x: The cost that the values belong to: the stored point's own, or the one asked for.
        cell: The stored point's cell, "" if there is none.
        windows: Metric → one value a window; empty where nothing is known.
    """

    curve: Curve
    state: State
    x: float | None = None
    cell: str = ""
    windows: Mapping[str, np.ndarray[Any, Any]] | None = None

    def estimate(self, metric: str, counts: Sequence[int]) -> Estimate | None:
        """Return the mean of a metric over the windows with its standard error, None where it is unknown."""
        values = (self.windows or {}).get(metric)
        if values is None or len(values) != len(counts):
            return None
        return estimate([float(value) for value in values], counts)


def read_curve(
    curve: Curve, windows: Windows, at: float, cost: str = "mlp_density", dense: pd.Series | None = None
) -> Reading:
    """Read a curve at a cost; at a measured speed, the best stored point that is at least as fast.

    Args:
        curve: The curve.
        windows: The windows of its points (and of others).
        at: The cost, as it is shown (megabytes for ``bytes_per_token``).
        cost: The metric that is the cost.
        dense: The dense model's row. It ends every curve: at density 1 each method reads everything.
    """
    if cost == SPEED:
        return _fast_enough(curve, windows, at)
    x = COST[cost].values(curve.points).to_numpy()
    whole = 1.0 if dense is None else float(dense[cost]) * COST[cost].scale
    nearest = int(np.abs(x - at).argmin())
    if abs(x[nearest] - at) <= TOLERANCE * whole:
        row = curve.points.iloc[nearest]
        return Reading(
            curve, "measured", float(x[nearest]), str(row["cell_id"]), _windows_of(windows, row["cell_id"])
        )
    if at <= floor(curve, cost, dense):
        return Reading(curve, "cannot reach")
    knots, cells = _knots(curve, x, dense, whole)
    if not curve.swept or not knots[0] <= at <= knots[-1] or len(knots) < 2:
        return Reading(curve, "not measured")
    return Reading(curve, "interpolated", at, "", _interpolate(windows, knots, cells, at))


def floor(curve: Curve, cost: str, dense: pd.Series | None) -> float:
    """Return the cost that the method cannot go below, by its registry entry; 0 if it has none.

    On an axis other than MLP density it follows from two points, for methods that skip MLP weights only.
    """
    if curve.policy not in METHODS:
        return 0.0
    method = METHODS[curve.policy]
    density = method.density_floor()
    if cost == "mlp_density" or density == 0:
        return density
    if dense is None or any(site.startswith("attn") for site in method.sites()):
        return 0.0
    row = curve.points.iloc[0]
    slope = (dense[cost] - row[cost]) / max(1e-9, dense["mlp_density"] - row["mlp_density"])
    return float(dense[cost] - slope * (1 - density)) * COST[cost].scale


def crossing(curve: Curve, at: float, cost: str, dense: pd.Series) -> float | None:
    """Return the cost at which the curve's perplexity comes down to ``at``, between two stored points.

    It is looked for from the cheapest point that holds ``at`` to the next cheaper one; None if the
    cheapest measured point of all holds it, or no point does.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import brentq

    x = COST[cost].values(curve.points).to_numpy()
    knots, cells = _knots(curve, x, dense, float(dense[cost]) * COST[cost].scale)
    measured = zip(curve.points["cell_id"], curve.points["perplexity"], strict=True)
    loss = {cell: math.log(perplexity) for cell, perplexity in measured}
    loss[dense["cell_id"]] = math.log(dense["perplexity"])
    height = np.array([loss[cell] for cell in cells]) - math.log(at)
    holding = np.flatnonzero(height <= 0)
    if not curve.swept or len(holding) == 0 or holding[0] == 0 or len(knots) < 2:
        return None
    between = PchipInterpolator(knots, height)
    return float(brentq(between, knots[holding[0] - 1], knots[holding[0]]))


def window_counts(tokens: int, window: int, stride: int) -> list[int]:
    """Return how many tokens each window scores: all but the first of the first window, then the new ones."""
    return [window - 1] + [min(window - 1, stride)] * (tokens // window - 1)


def _fast_enough(curve: Curve, windows: Windows, at: float) -> Reading:
    """Return the stored point of lowest perplexity that decodes at least ``at`` tokens a second."""
    speeds = COST[SPEED].values(curve.points)
    if speeds.isna().all():
        return Reading(curve, "not measured")
    fast = curve.points[speeds >= at]
    if fast.empty:
        return Reading(curve, "cannot reach")
    row = fast.sort_values("perplexity", kind="stable").iloc[0]
    cell = str(row["cell_id"])
    return Reading(curve, "measured", float(row[SPEED]), cell, _windows_of(windows, cell))


def _knots(
    curve: Curve, x: np.ndarray[Any, Any], dense: pd.Series | None, whole: float
) -> tuple[np.ndarray[Any, Any], list[str]]:
    """Return the curve's costs, rising and each once, and their cells; the dense model's at the end."""
    at = {float(position): str(cell) for position, cell in zip(x, curve.points["cell_id"], strict=True)}
    if dense is not None:
        at.setdefault(whole, str(dense["cell_id"]))
    knots = sorted(at)
    return np.array(knots), [at[knot] for knot in knots]


def _interpolate(
    windows: Windows, knots: np.ndarray[Any, Any], cells: list[str], at: float
) -> dict[str, np.ndarray[Any, Any]]:
    from scipy.interpolate import PchipInterpolator

    found = {}
    for metric, values in windows.items():
        rows = values.index.get_indexer(pd.Index(cells))
        table = values.to_numpy(dtype=float)[rows]
        if (rows >= 0).all() and not np.isnan(table).any():
            found[metric] = PchipInterpolator(knots, table, axis=0)(at)
    return found


def _windows_of(windows: Windows, cell: str) -> dict[str, np.ndarray[Any, Any]]:
    return {
        metric: values.loc[cell].to_numpy(dtype=float)
        for metric, values in windows.items()
        if cell in values.index
    }
