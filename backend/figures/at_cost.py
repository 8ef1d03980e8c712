"""The read-out as a figure: every method's value at one cost, one row each."""

from __future__ import annotations

from collections.abc import Sequence

from backend.evaluation.statistics import Estimate
from backend.figures.metrics import COST, QUALITY, SPEED
from backend.figures.read_out import MethodReading
from backend.figures.spec import Axis, Baseline, FigureSpec, How, Provenance, Series


def at_cost(
    readings: Sequence[MethodReading], at: float, quality: str, cost: str, dense: float | None
) -> FigureSpec:
    """Return the figure of a read-out: one row a method that has a value there, the best on top.

    Args:
        readings: What :func:`backend.figures.read_out.read_out` returned.
        at: The cost they were read at.
        quality: The metric shown: perplexity, delta_nll, kl or agreement.
        cost: The metric that is the cost.
        dense: The dense model's value, drawn as a line.
    """
    metric, axis = QUALITY[quality], COST[cost]
    known = [(reading, found) for reading in readings if (found := _value(reading, quality)) is not None]
    known.sort(key=lambda pair: pair[1].value, reverse=metric.better == "lower")
    series = [_row(reading, found, place) for place, (reading, found) in enumerate(known)]
    ticks = tuple((float(place), reading.curve.label) for place, (reading, _) in enumerate(known))
    how: set[How] = {"measured" if reading.curve.realisable else "oracle" for reading, _ in known}
    where = axis.format.format(at)
    name = f"at {axis.label} {where}" if cost != SPEED else f"at {where} {axis.unit} or more"
    open_markers = " Open markers: interpolated." if any(any(s.hollow) for s in series) else ""
    return FigureSpec(
        title=f"{metric.label} {name}",
        x=Axis(label=metric.label, unit=metric.unit, better=metric.better),
        y=Axis(label="", range=(-0.6, max(0, len(known) - 1) + 1.0), ticks=ticks),
        series=tuple(reversed(series)),
        baselines=() if dense is None else (Baseline(value=dense, label="Dense", axis="x"),),
        note=f"Bars: ± one standard error over windows.{open_markers}",
        provenance=Provenance(filters={"cost": cost, "at": where}, how=tuple(sorted(how))),
    )


def _value(reading: MethodReading, quality: str) -> Estimate | None:
    found: Estimate | None = getattr(reading, quality)
    return found


def _row(reading: MethodReading, found: Estimate, place: int) -> Series:
    return Series(
        name=reading.curve.key,
        label=reading.curve.label,
        style=reading.curve.style,
        kind="markers",
        x=(found.value,),
        y=(float(place),),
        x_err=(found.stderr,),
        ids=(reading.cell,),
        details=(f"{reading.curve.label}: {reading.state}",),
        hollow=(reading.state == "interpolated",),
    )
