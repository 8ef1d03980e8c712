"""Read-outs of a trade-off: every method at one cost, and the cheapest point of each within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from backend.evaluation.statistics import Estimate, estimate
from backend.figures.curves import Curve, curves, dense_point
from backend.figures.interpolation import (
    TOLERANCE,
    Reading,
    State,
    Windows,
    crossing,
    read_curve,
    window_counts,
)
from backend.figures.metrics import COST, SPEED


@dataclass(frozen=True)
class MethodReading:
    """One method at one cost.

    Attributes:
        curve: The method's curve.
        state: "measured" (the stored point), "interpolated", "cannot reach" or "not measured".
        x: The cost its values belong to.
        cell: The stored point, "" if there is none.
        perplexity: Dense perplexity times exp(ΔNLL); its error is the paired one.
        delta_nll: Paired difference to the dense model, nats/token.
        kl: KL(dense‖sparse), nats/token.
        agreement: Share of tokens whose most likely next token is the dense model's.
        against: Paired difference of NLL to the reference method at the same cost, nats/token.
    """

    curve: Curve
    state: State
    x: float | None = None
    cell: str = ""
    perplexity: Estimate | None = None
    delta_nll: Estimate | None = None
    kl: Estimate | None = None
    agreement: Estimate | None = None
    against: Estimate | None = None


@dataclass(frozen=True)
class Feasible:
    """The cheapest point of one method that keeps to a budget of perplexity.

    Attributes:
        curve: The method's curve.
        cell: The measured point, "" if no measured point keeps to the budget.
        x: Its cost.
        delta_nll: Its paired difference to the dense model.
        crossing: Where the curve crosses the budget, interpolated; None if it was not measured.
    """

    curve: Curve
    cell: str = ""
    x: float | None = None
    delta_nll: Estimate | None = None
    crossing: float | None = None


def read_out(
    points: pd.DataFrame,
    windows: Windows,
    at: float,
    cost: str = "mlp_density",
    reference: str | None = None,
) -> list[MethodReading]:
    """Read every curve at one cost.

    Args:
        points: Rows of one evaluation, as :func:`backend.results.queries.points` returns them.
        windows: Window values of their cells, by metric.
        at: The cost, as it is shown (megabytes for ``bytes_per_token``).
        cost: The metric that is the cost.
        reference: Key of the curve that the others are compared with, None for none.
    """
    dense = dense_point(points)
    found = [read_curve(curve, windows, at, cost, dense) for curve in curves(points)]
    if not found:
        return []
    counts = counts_of(points)
    base = next((reading for reading in found if reading.curve.key == reference), None)
    return [_method_reading(reading, base, dense, counts) for reading in found]


def best_within_budget(points: pd.DataFrame, budget: float, cost: str = "mlp_density") -> list[Feasible]:
    """Return each curve's cheapest point whose perplexity is at most ``budget`` above the dense model's.

    Args:
        points: Rows of one evaluation.
        budget: Allowed rise of perplexity as a share (0.01: one per cent).
        cost: The metric that is the cost.
    """
    dense = dense_point(points)
    if dense is None:
        return []
    limit = float(dense["perplexity"]) * (1 + budget)
    return [_feasible(curve, limit, cost, dense) for curve in curves(points)]


def lowest(feasible: Sequence[Feasible], cost: str, points: pd.DataFrame) -> Feasible:
    """Return the cheapest (or fastest); of those alike within the tolerance, the nearest to dense.

    Args:
        feasible: At least one, each with a measured point.
        cost: The metric that is the cost.
        points: Rows of the evaluation.
    """
    reach = TOLERANCE * float(COST[cost].values(points).max())
    best = (min if COST[cost].better == "lower" else max)(found.x or 0.0 for found in feasible)
    near = [found for found in feasible if abs((found.x or 0.0) - best) <= reach]
    return min(near, key=lambda found: found.delta_nll.value if found.delta_nll else math.inf)


def counts_of(points: pd.DataFrame) -> list[int]:
    """Return the scored tokens of each window of these points' one evaluation."""
    row = points.iloc[0]
    return window_counts(int(row["tokens"]), int(row["window"]), int(row["stride"]))


def relative(delta_nll: Estimate) -> Estimate:
    """Return a difference of NLL as a relative rise of perplexity: exp(ΔNLL) − 1, with its error."""
    factor = math.exp(delta_nll.value)
    spread = None if delta_nll.stderr is None else factor * delta_nll.stderr
    return Estimate(factor - 1, spread, delta_nll.n)


def _method_reading(
    reading: Reading, base: Reading | None, dense: pd.Series | None, counts: list[int]
) -> MethodReading:
    delta = reading.estimate("delta_nll", counts)
    return MethodReading(
        reading.curve,
        reading.state,
        reading.x,
        reading.cell,
        perplexity=_perplexity(delta, dense),
        delta_nll=delta,
        kl=reading.estimate("kl", counts),
        agreement=reading.estimate("agreement", counts),
        against=_paired(reading, base, counts),
    )


def _perplexity(delta: Estimate | None, dense: pd.Series | None) -> Estimate | None:
    if delta is None or dense is None:
        return None
    rise = relative(delta)
    scale = float(dense["perplexity"])
    return Estimate(scale * (1 + rise.value), None if rise.stderr is None else scale * rise.stderr, delta.n)


def _paired(reading: Reading, base: Reading | None, counts: list[int]) -> Estimate | None:
    """Return the difference of NLL between two readings, window by window."""
    if base is None or base.curve.key == reading.curve.key:
        return None
    mine, theirs = ((side.windows or {}).get("delta_nll") for side in (reading, base))
    if mine is None or theirs is None or len(mine) != len(counts):
        return None
    return estimate([float(value) for value in mine - theirs], counts)


def _feasible(curve: Curve, limit: float, cost: str, dense: pd.Series) -> Feasible:
    between = None if cost == SPEED else crossing(curve, limit, cost, dense)
    within = curve.points[curve.points["perplexity"] <= limit]
    if within.empty:
        return Feasible(curve, crossing=between)
    row = within.loc[COST[cost].spent(within).sort_values(kind="stable").index[0]]
    stderr = float(row["delta_nll_stderr"])
    delta = Estimate(
        float(row["delta_nll"]), None if math.isnan(stderr) else stderr, int(row["scored_tokens"])
    )
    return Feasible(curve, str(row["cell_id"]), float(row[cost]) * COST[cost].scale, delta, between)
