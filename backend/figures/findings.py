"""Findings: what stored results say of one method, as sentences made from the numbers and small figures."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from backend.evaluation.statistics import Estimate
from backend.figures.curves import Curve, curves, dense_point
from backend.figures.interpolation import Windows
from backend.figures.metrics import COST
from backend.figures.read_out import MethodReading, best_within_budget, read_out, relative
from backend.figures.spec import Axis, Baseline, FigureSpec, Series
from backend.figures.trade_off import TradeOffOptions, provenance, trade_off

SUBJECT = "dip"
_COST = "mlp_density"
PAIRED_NOTE = "± one standard error of the paired difference to dense, over windows."


@dataclass(frozen=True)
class Finding:
    """A sentence and the figure that shows it.

    Attributes:
        title: A few words.
        sentence: What was found, with its uncertainty.
        spec: The figure.
    """

    title: str
    sentence: str
    spec: FigureSpec


def findings(points: pd.DataFrame, windows: Windows) -> list[Finding]:
    """Return what can be said from these points; a finding whose points are missing is left out.

    Args:
        points: Rows of one evaluation, as :func:`backend.results.queries.points` returns them.
        windows: Window values of their cells, by metric.
    """
    found = [
        within_budget(points, 0.01),
        against_others(points, windows, (0.7, 0.85)),
        between_bounds(points, windows, 0.5),
    ]
    return [finding for finding in found if finding is not None]


def within_budget(points: pd.DataFrame, budget: float) -> Finding | None:
    """Say how far down the method's density goes within a budget of perplexity."""
    dense = dense_point(points)
    feasible = next((f for f in best_within_budget(points, budget) if f.curve.key == SUBJECT), None)
    reached = None if feasible is None else feasible.crossing if feasible.x is None else feasible.x
    if feasible is None or reached is None or dense is None:
        return None
    name, allowed = feasible.curve.label, f"+{100 * budget:g} %"
    if feasible.x is None:
        sentence = f"No measured point of {name} stays within {allowed} of dense perplexity."
    else:
        sentence = (
            f"{name} reads {100 * feasible.x:.0f} % of the MLP weights at {_rise(feasible.delta_nll)} "
            "perplexity against dense (measured, paired)."
        )
    if feasible.crossing is not None:
        sentence += f" Its curve crosses {allowed} at density {feasible.crossing:.2f} (interpolated)."
    limit = float(dense["perplexity"]) * (1 + budget)
    spec = trade_off(points, TradeOffOptions(methods=(SUBJECT,), view="Near dense", front=False))
    near, limits = _close_up(reached, float(dense["perplexity"]), limit)
    spec = spec.model_copy(
        update={
            "title": f"{name} within {allowed} of dense perplexity",
            "x": _compact(spec.x, near),
            "y": _compact(spec.y, limits),
            "baselines": (*spec.baselines, Baseline(value=limit, label=allowed)),
            "note": PAIRED_NOTE,
        }
    )
    return Finding(f"Within {allowed} of dense", sentence, spec)


def against_others(points: pd.DataFrame, windows: Windows, densities: tuple[float, ...]) -> Finding | None:
    """Compare the method with the best other usable one, paired, at a few densities."""
    readings = {at: read_out(points, windows, at, _COST, SUBJECT) for at in densities}
    said = [text for at in densities if (text := _best_other(readings[at], at))]
    subject = next((c for c in curves(points) if c.key == SUBJECT), None)
    if not said or subject is None:
        return None
    grid = sorted(round(float(x), 4) for x in subject.points[_COST])
    rivals = [c for c in curves(points) if c.key != SUBJECT and c.usable and c.swept]
    series = tuple(s for rival in rivals if (s := _differences(points, windows, rival, grid)) is not None)
    if not series:
        return None
    densities_shown, losses_shown = _near_zero(series)
    spec = FigureSpec(
        title=f"Loss of other methods minus {subject.label}'s, at equal density",
        x=Axis(label=COST[_COST].label, range=densities_shown),
        y=Axis(label=f"NLL − {subject.label}'s", unit="nats/token", range=losses_shown),
        series=series,
        baselines=(Baseline(value=0.0, label=subject.label),),
        note=f"Above the line {subject.label} is better. ± one paired standard error; open: interpolated.",
        provenance=provenance(points, [subject, *rivals]),
    )
    return Finding("At equal density", " ".join(said), spec)


def between_bounds(points: pd.DataFrame, windows: Windows, at: float) -> Finding | None:
    """Place the method between the oracle bound and the random control at one density."""
    readings = {reading.curve.policy: reading for reading in read_out(points, windows, at, _COST)}
    named = [readings.get(name) for name in ("glu_oracle", SUBJECT, "random")]
    known = [r for r in named if r is not None and r.delta_nll is not None]
    if len(known) < 2 or known[0].curve.policy == "random" or SUBJECT not in {r.curve.policy for r in known}:
        return None
    parts = [f"{r.curve.label} {nats(r.delta_nll)}{_aside(r)}" for r in known]
    sentence = f"Loss over dense at MLP density {at:g}, in nats/token: {'; '.join(parts)}."
    wanted = ("glu_oracle", SUBJECT, "random")
    options = TradeOffOptions(quality="delta_nll", methods=wanted, view="Wide", front=False)
    spec = trade_off(points, options)
    spec = spec.model_copy(
        update={
            "title": "Between the oracle bound and chance",
            "x": _compact(spec.x, spec.x.range),
            "y": spec.y.model_copy(update={"label": "ΔNLL", "unit": "nats/token"}),
            "series": tuple(s.model_copy(update={"faded": ()}) for s in spec.series if s.name != "dense"),
            "baselines": (),
            "note": PAIRED_NOTE,
        }
    )
    return Finding("Room that is left", sentence, spec)


def _compact(axis: Axis, limits: tuple[float, float] | None) -> Axis:
    """Return an axis for a small figure: without its unit, over a range of its own."""
    return axis.model_copy(update={"unit": "", "range": limits})


def _close_up(feasible: float, dense: float, limit: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of both axes around the point where the budget ends."""
    return (max(0.0, feasible - 0.25), 1.03), (dense - (limit - dense), dense + 6 * (limit - dense))


def _best_other(readings: list[MethodReading], at: float) -> str:
    """Say which usable method comes nearest at one density, and by how much."""
    subject = next((r for r in readings if r.curve.key == SUBJECT), None)
    others = [r for r in readings if r.curve.usable and r.against is not None]
    if subject is None or subject.delta_nll is None or not others:
        return ""
    best = min(others, key=lambda r: r.against.value if r.against else 0.0)
    assert best.against is not None
    gap = Estimate(-best.against.value, best.against.stderr, best.against.n)
    unclear = gap.stderr is not None and abs(gap.value) < 2 * gap.stderr
    mine, theirs = (f"{reading.curve.label}{_aside(reading)}" for reading in (subject, best))
    if unclear:
        return (
            f"At density {at:g}, {mine} and {theirs}, the best other, do not differ clearly "
            f"({nats(gap, sign=True)} nats/token)."
        )
    size = Estimate(abs(gap.value), gap.stderr, gap.n)
    return (
        f"At density {at:g}, {mine} loses {nats(size)} nats/token {'less' if gap.value < 0 else 'more'} than "
        f"{theirs}, the best other."
    )


def _differences(points: pd.DataFrame, windows: Windows, rival: Curve, grid: list[float]) -> Series | None:
    read = [
        (at, reading)
        for at in grid
        for reading in read_out(points, windows, at, _COST, SUBJECT)
        if reading.curve.key == rival.key and reading.against is not None
    ]
    if not read:
        return None
    return Series(
        name=rival.key,
        label=rival.label,
        style=rival.style,
        x=tuple(at for at, _ in read),
        y=tuple(r.against.value for _, r in read if r.against),
        y_err=tuple(r.against.stderr for _, r in read if r.against),
        ids=tuple(r.cell for _, r in read),
        details=tuple(f"{rival.label}: {nats(r.against, sign=True)} nats/token" for _, r in read),
        hollow=tuple(r.state == "interpolated" for _, r in read),
    )


def _near_zero(series: tuple[Series, ...]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return ranges of both axes that show where the differences are small, at most a quarter of a nat.

    The end of an error bar whose point lies outside would be a mark without a meaning, so none is inside.
    """
    pairs = [(x, y) for s in series for x, y in zip(s.x, s.y, strict=True)]
    high = min(0.25, 1.1 * max(abs(y) for _, y in pairs))
    ends = (y - error for s in series for y, error in zip(s.y, s.y_err, strict=True) if error and y > high)
    high = min([high, *(0.98 * end for end in ends if end > high / 2)])
    shown = [x for x, y in pairs if abs(y) <= high]
    return (min(shown, default=0.5) - 0.05, 1.0), (-0.15 * high, high)


def _rise(delta: Estimate | None) -> str:
    if delta is None:
        return "–"
    rise = relative(delta)
    spread = "" if rise.stderr is None else f" ± {100 * rise.stderr:.2f}"
    return f"{100 * rise.value:+.2f}{spread} %".replace("-", "−")


def nats(found: Estimate | None, sign: bool = False) -> str:
    """Return an estimate in nats/token as text: "0.0123 ± 0.0010"."""
    if found is None:
        return "–"
    digits = 4 if abs(found.value) < 0.1 else 3
    value = f"{found.value:{'+' if sign else ''}.{digits}f}".replace("-", "−")
    return value if found.stderr is None else f"{value} ± {found.stderr:.{digits}f}"


def _aside(reading: MethodReading) -> str:
    return " (interpolated)" if reading.state == "interpolated" else ""
