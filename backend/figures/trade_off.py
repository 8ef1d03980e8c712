"""The trade-off figure: quality against cost, the dense model as baseline, the front of usable methods."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from backend.figures.curves import Curve, curves, dense_point, point_label, title_of
from backend.figures.front import pareto_front
from backend.figures.interpolation import TOLERANCE
from backend.figures.metrics import ALL, COST, QUALITY, SPEED, Metric
from backend.figures.palette import FRONT, style_of
from backend.figures.spec import Axis, Baseline, FigureSpec, How, Provenance, Series
from backend.figures.speed import Timed, without_speed


@dataclass(frozen=True)
class TradeOffOptions:
    """What a trade-off figure shows.

    Attributes:
        quality: The vertical metric.
        cost: The horizontal metric.
        methods: Names of the methods shown, None for all.
        log: Logarithmic vertical axis.
        view: How far from the dense model the vertical axis reaches ("Wide", or "All").
        dominated: Show points that another usable point beats (in grey).
        front: Draw the front.
    """

    quality: str = "perplexity"
    cost: str = "mlp_density"
    methods: tuple[str, ...] | None = None
    log: bool = False
    view: str = "Wide"
    dominated: bool = True
    front: bool = True


def trade_off(points: pd.DataFrame, options: TradeOffOptions = TradeOffOptions()) -> FigureSpec:
    """Return the figure of one evaluation's points.

    The front is drawn over the shown methods that are realisable, do not look at the label and are no
    controls; axes are fixed by all points of the evaluation, whatever is shown, so that they hold still.

    Args:
        points: Rows of one evaluation, as :func:`backend.results.queries.points` returns them.
        options: What to show.

    Raises:
        UserError: A metric of ``options`` is unknown.
    """
    quality, cost = QUALITY[options.quality], COST[options.cost]
    known = points[points[quality.name].notna() & points[cost.name].notna()]
    drawn = [c for c in curves(known) if options.methods is None or c.policy in (*options.methods, "dense")]
    dense = dense_point(known)
    usable = [curve for curve in drawn if curve.usable]
    front = _front_cells(usable, dense, quality, cost)
    limit = _limit(quality, options.view, dense)
    series = [_series(curve, quality, cost, front, options.dominated or not curve.usable) for curve in drawn]
    if dense is not None:
        series.insert(0, _dense_series(dense, quality, cost))
    if options.front and usable:
        series.insert(0, _front_series(usable, dense, quality, cost, front))
    shown = tuple(s for s in series if s.x)
    notes = _note(quality, shown, limit), _cost_note(_of(points, options.methods), cost, shown)
    return FigureSpec(
        title=f"{quality.label} against {cost.label}",
        x=Axis(label=cost.label, unit=cost.unit, better=cost.better, range=_cost_range(known, cost)),
        y=Axis(
            label=quality.label,
            unit=quality.unit,
            better=quality.better,
            log=options.log,
            range=_quality_range(known, quality, dense, limit, options.log),
        ),
        series=shown,
        baselines=_baselines(dense, quality),
        note=" ".join(filter(None, notes)),
        provenance=provenance(known, drawn),
    )


def provenance(points: pd.DataFrame, drawn: list[Curve]) -> Provenance:
    """Return where the points of these curves came from."""
    rows = pd.concat([curve.points for curve in drawn]) if drawn else points.iloc[:0]
    how: list[How] = sorted(set(rows["how"]))
    first = points.iloc[0] if len(points) else None
    names = ("model", "model_sha256", "text", "text_sha256", "tokens", "window", "stride", "dtype")
    filters = {} if first is None else {name: str(first[name]) for name in names}
    timed = list(rows["latency_run"].dropna()) if "latency_run" in rows else []
    return Provenance(runs=tuple(sorted({*rows["run_id"], *timed})), filters=filters, how=tuple(how))


def provenance_of(points: pd.DataFrame) -> Provenance:
    """Return where these points of one evaluation, of any kind, came from."""
    how: list[How] = sorted(set(points["how"]))
    first = points.iloc[0] if len(points) else None
    names = ("model", "model_sha256", "text", "text_sha256", "evaluation", "dtype")
    filters = {} if first is None else {name: str(first[name]) for name in names}
    return Provenance(runs=tuple(sorted(set(points["run_id"]))), filters=filters, how=tuple(how))


def _front_cells(usable: list[Curve], dense: pd.Series | None, quality: Metric, cost: Metric) -> set[str]:
    rows = [curve.points for curve in usable]
    if dense is not None:
        rows.append(dense.to_frame().T)
    if not rows:
        return set()
    table = pd.concat(rows)
    spent = cost.spent(table)
    flags = pareto_front(
        spent.tolist(), quality.values(table).tolist(), quality.better, TOLERANCE * float(spent.abs().max())
    )
    return set(table["cell_id"][flags])


def _front_series(
    usable: list[Curve], dense: pd.Series | None, quality: Metric, cost: Metric, front: set[str]
) -> Series:
    rows = [curve.points for curve in usable] + ([] if dense is None else [dense.to_frame().T])
    table = pd.concat(rows)
    table = table[table["cell_id"].isin(front)]
    # From the cheapest point on: each step holds until the next point is reached.
    pairs = sorted(
        zip(cost.values(table).tolist(), quality.values(table).tolist(), strict=True),
        reverse=cost.better == "higher",
    )
    return Series(
        name="front",
        label="Pareto front",
        style=FRONT,
        kind="front",
        x=tuple(x for x, _ in pairs),
        y=tuple(y for _, y in pairs),
    )


def _series(curve: Curve, quality: Metric, cost: Metric, front: set[str], dominated: bool) -> Series:
    keep = curve.points["cell_id"].isin(front) | dominated
    points = curve.points[keep]
    faded = tuple(curve.usable and cell not in front for cell in points["cell_id"])
    return Series(
        name=curve.key,
        label=curve.label,
        style=curve.style,
        kind="line" if curve.swept else "markers",
        x=tuple(cost.values(points).tolist()),
        y=tuple(quality.values(points).tolist()),
        x_err=_errors(cost, points),
        y_err=_errors(quality, points),
        ids=tuple(points["cell_id"]),
        details=_details(points),
        faded=faded,
    )


def _dense_series(dense: pd.Series, quality: Metric, cost: Metric) -> Series:
    points = dense.to_frame().T
    return Series(
        name="dense",
        label=title_of("dense"),
        style=style_of("dense"),
        kind="markers",
        x=tuple(cost.values(points).tolist()),
        y=tuple(quality.values(points).tolist()),
        x_err=_errors(cost, points),
        ids=(str(dense["cell_id"]),),
        details=_details(points),
    )


def _errors(metric: Metric, points: pd.DataFrame) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(error) else error for error in metric.errors(points).tolist())


def _details(points: pd.DataFrame) -> tuple[str, ...]:
    """Return what hovering over each point says, line by line."""
    columns = [[point_label(*named) for named in zip(points["policy"], points["settings"], strict=True)]]
    for metric in (*QUALITY.values(), *COST.values()):
        found = zip(metric.values(points).tolist(), metric.errors(points).tolist(), strict=True)
        said = (
            "" if math.isnan(value)
            else f"{metric.label}: {metric.show(value, error)} {metric.unit}".rstrip()
            for value, error in found
        )  # fmt: skip
        columns.append(list(said))
    if "machine" in points:
        said_of = {row["cell_id"]: _timed(row) for _, row in points[points[SPEED].notna()].iterrows()}
        columns.append([said_of.get(cell, "") for cell in points["cell_id"]])
    return tuple("\n".join(filter(None, lines)) for lines in zip(*columns, strict=True))


def _timed(row: pd.Series) -> str:
    """Return what hovering says of a point's latency, "" if it has none."""
    said = Timed.of(row)
    if said is None:
        return ""
    return f"p10–p90: {said.range} tokens/s\nOver dense: {said.speedup}\n{said.machine}"


def _limit(quality: Metric, view: str, dense: pd.Series | None) -> float | None:
    """Return where the vertical axis ends on the worse side, None to show all."""
    if view == ALL or view not in quality.views:
        return None
    limit = quality.views[view]
    if quality.name != "perplexity":
        return limit
    return None if dense is None else limit * float(dense["perplexity"])


def _quality_range(
    points: pd.DataFrame, quality: Metric, dense: pd.Series | None, limit: float | None, log: bool
) -> tuple[float, float] | None:
    """Return the range of the vertical axis, with a margin; the best point is always inside."""
    values = quality.values(points)
    if values.empty:
        return None
    worst = float(values.max() if quality.better == "lower" else values.min()) if limit is None else limit
    best = float(values.min() if quality.better == "lower" else values.max())
    low, high = min(best, worst), max(best, worst)
    if log:
        positive = values[values > 0]
        low = max(low, float(positive.min()) if len(positive) else high / 10)
        margin = (high / low) ** 0.05
        return low / margin, high * margin
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _cost_range(points: pd.DataFrame, cost: Metric) -> tuple[float, float] | None:
    values = cost.values(points)
    if values.empty:
        return None
    whole = float(values.max())
    if cost.name == SPEED:  # from the slowest to the fastest, with their bars
        spread = cost.errors(points).fillna(0.0)
        low, high = float((values - spread).min()), float((values + spread).max())
        margin = 0.06 * (high - low) or 0.1 * high
        return low - margin, high + margin
    return min(float(values.min()), 0.1 * whole) - 0.03 * whole, 1.03 * whole


def _baselines(dense: pd.Series | None, quality: Metric) -> tuple[Baseline, ...]:
    if dense is None:
        return ()
    value = float(dense[quality.name]) * quality.scale
    return (Baseline(value=value, label=f"Dense {quality.format.format(value)}"),)


def _note(quality: Metric, series: tuple[Series, ...], limit: float | None) -> str:
    said = []
    if any(error for s in series for error in s.y_err):
        paired = " of the paired difference to dense" if quality.name in ("perplexity", "delta_nll") else ""
        said.append(f"Error bars: ± one standard error{paired}, over windows.")
    if any(any(s.faded) for s in series):
        said.append("Grey points are dominated.")
    outside = sum(_beyond(y, limit, quality) for s in series if s.kind != "front" for y in s.y)
    if outside:
        said.append(f"{outside} point{'s lie' if outside > 1 else ' lies'} outside the range shown.")
    return " ".join(said)


def _of(points: pd.DataFrame, methods: tuple[str, ...] | None) -> pd.DataFrame:
    return points if methods is None else points[points["policy"].isin([*methods, "dense"])]


def _cost_note(points: pd.DataFrame, cost: Metric, series: tuple[Series, ...]) -> str:
    """Say what the error bars of a measured speed are, and which points have none."""
    if cost.name != SPEED:
        return ""
    bars = any(error for s in series for error in s.x_err)
    spread = "Horizontal bars: ± one standard error over rounds." if bars else ""
    return f"{spread} {without_speed(points)}".strip()


def _beyond(value: float, limit: float | None, quality: Metric) -> bool:
    return limit is not None and (value > limit if quality.better == "lower" else value < limit)
