"""The sliders of the Trade-offs page: every method at one cost, and the cheapest point within a budget.

They are fragments: a move of a slider draws their tables anew and leaves the big figure alone.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.figures import (
    COST,
    QUALITY,
    Feasible,
    MethodReading,
    Metric,
    at_cost,
    best_within_budget,
    curves,
    dense_point,
    lowest,
    point_label,
    read_out,
)
from backend.figures.metrics import SPEED
from backend.figures.speed import Timed, machines
from pages._shared.address import Address
from pages._shared.evaluation import Chosen
from pages._shared.figures import show_figure
from pages._shared.measure_latency import latency_button
from pages._shared.speed import Joined, Timing, timed_only
from pages._shared.store import OpenStore
from pages._shared.text import as_rise, shown, with_error

SLIDER_KEYS = {
    "mlp_density": "density", "model_density": "model_density", "bytes_per_token": "megabytes",
    SPEED: "speed",
}  # fmt: skip
_MEASURED_ONLY = (
    "Each method's best stored point that is at least as fast; nothing is interpolated between timings. "
    "± one standard error, of differences over windows, of times over rounds."
)
_INTERPOLATED = (
    "± one standard error over windows; perplexity's is that of the paired difference to dense. "
    "Interpolated values lie between two measured points (monotone, window by window); the error of the "
    "interpolation itself is not in the ±."
)


_NO_SPEED = (
    "No point shown has a measured latency. `python -m backend latency --policy dip --set density=0.5` times "
    "one; so does the button here, through the worker."
)


def read_out_section(
    opened: OpenStore, found: Joined, timing: Timing, methods: tuple[str, ...], quality: str, cost: str
) -> None:
    """Show a slider over the cost, and every method's values there."""
    address, metric, chosen = Address(), COST[cost], found.chosen
    points = timed_only(_of_methods(chosen.points, methods), cost)
    labels = {curve.label: curve.key for curve in curves(points)}
    if not labels:
        st.info("Choose a method to read out." if cost != SPEED or not methods else _NO_SPEED)
        if cost == SPEED:
            latency_button(opened, chosen, timing, [], "", 0.0, cost)
        return
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        at = _slider(address, timed_only(chosen.points, cost), metric)
    with right:
        reference = address.choice(
            "Compare with", list(labels), "reference", help="Differences are paired by window."
        )
    readings = read_out(points, found.windows, at, cost, labels[reference])
    dense, timed = dense_point(points), _timed(points)
    st.dataframe(
        _read_out_table(readings, reference, metric, timed),
        hide_index=True,
        key="read_out_table",
        alt=f"Every method at {metric.label} {metric.format.format(at)}",
        column_config={"Method": st.column_config.Column(pinned=True)},
    )
    st.caption(f"{_MEASURED_ONLY if cost == SPEED else _INTERPOLATED} {_where_timed(timed, dense)}".strip())
    baseline = None if dense is None else float(dense[quality]) * QUALITY[quality].scale
    spec = at_cost(readings, at, quality, cost, baseline)
    if spec.series:
        show_figure(
            spec, "at_cost", height=max(160, 90 + 38 * len(spec.series)), legend=False, paper=(5.5, 2.2)
        )
    latency_button(opened, chosen, timing, readings, reference, at, cost)


def budget_section(chosen: Chosen, methods: tuple[str, ...], cost: str) -> None:
    """Show a slider over the budget, and each method's cheapest point that keeps to it."""
    address, metric = Address(), COST[cost]
    budget = address.number(
        "Perplexity at most … % above dense", 0.25, 20.0, "budget", default=1.0, step=0.25
    )
    found = best_within_budget(timed_only(_of_methods(chosen.points, methods), cost), budget / 100, cost)
    if not found:
        st.info("The dense model was not measured here, so there is nothing to compare with.")
        return
    timed = _timed(chosen.points)
    usable = [
        feasible
        for feasible in found
        if feasible.cell and feasible.curve.usable and feasible.curve.policy != "dense"
    ]
    if usable:
        best = lowest(usable, cost, chosen.points)
        goes = "fastest" if cost == SPEED else "lowest"
        said = timed.get(best.cell)
        value = metric.show(best.x) if said is None or cost != SPEED else said.speed
        unit = f" {metric.unit}" if "/" in metric.unit else ""
        beside = f" ({said.speedup} of dense in the same run)" if said is not None and cost == SPEED else ""
        st.markdown(
            f"**{best.curve.label}** goes {goes}: {metric.label} **{value}**{unit}{beside} at "
            f"{as_rise(best.delta_nll)} perplexity."
        )
    else:
        st.markdown("No usable method that was measured keeps to this budget.")
    rows = chosen.points[["cell_id", "policy", "settings"]].itertuples(index=False)
    names = {str(cell): point_label(str(policy), str(settings)) for cell, policy, settings in rows}
    st.dataframe(
        pd.DataFrame([_budget_row(each, metric, names, timed) for each in found]),
        hide_index=True,
        key="budget_table",
        alt=f"Each method's cheapest point within {budget:g} % of dense perplexity",
    )


def _slider(address: Address, points: pd.DataFrame, metric: Metric) -> float:
    values = metric.values(points)
    if metric.scale == 1.0 and metric.name != SPEED:
        return address.number(
            f"{metric.label} ({metric.unit})", 0.05, 1.0, SLIDER_KEYS[metric.name], default=0.7, step=0.01
        )
    low, high = float(int(values.min())), float(int(values.max()) + 1)
    part = 4 if metric.name == SPEED else 2  # int8 is several times as fast: not the middle
    return address.number(
        f"{metric.label} ({metric.unit}{', at least' if metric.name == SPEED else ''})",
        low,
        high,
        SLIDER_KEYS[metric.name],
        default=low + (high - low) // part,
        step=1.0,
    )


def _of_methods(points: pd.DataFrame, methods: tuple[str, ...]) -> pd.DataFrame:
    return points[points["policy"].isin([*methods, "dense"])]


def _where_timed(timed: dict[str, Timed], dense: pd.Series | None) -> str:
    """Say on which machine the speeds were measured and how fast dense is there, "" if there are none."""
    if not timed:
        return ""
    beside = None if dense is None else Timed.of(dense)
    pace = "" if beside is None else f"; dense decodes {beside.speed} tokens/s"
    return (
        f"Measured at batch one on {machines(list(timed.values()))}{pace}, the median of all runs; "
        "tokens/s are that times the speed-up over dense in the same run."
    )


def _speed_columns(said: Timed | None, cost: str) -> dict[str, str]:
    """Return what is known of a stored point's latency; all of it where speed is the axis."""
    columns = {"Tokens/s ↑": "speed", "Over dense ↑": "speedup"}
    if cost == SPEED:
        columns |= {"p10–p90": "range", "Rounds": "rounds", "Loop": "loop"}
    return {title: "–" if said is None else getattr(said, name) for title, name in columns.items()}


def _read_out_table(
    readings: list[MethodReading], reference: str, metric: Metric, timed: dict[str, Timed]
) -> pd.DataFrame:
    on_axis = bool(timed) and metric.name == SPEED
    return pd.DataFrame(
        [
            {
                "Method": reading.curve.label,
                "How": _how(reading, metric),
                **(_speed_columns(timed.get(reading.cell), metric.name) if on_axis else {}),
                "Perplexity ↓": shown(QUALITY["perplexity"], reading.perplexity),
                "Rise over dense ↓": as_rise(reading.delta_nll),
                "ΔNLL to dense ↓": with_error(reading.delta_nll, sign=True),
                f"NLL − {reference}'s ↓": with_error(reading.against, sign=True),
                "KL ↓": shown(QUALITY["kl"], reading.kl),
                "Agreement ↑": shown(QUALITY["agreement"], reading.agreement),
                **(_speed_columns(timed.get(reading.cell), metric.name) if timed and not on_axis else {}),
            }
            for reading in readings
        ]
    )


def _how(reading: MethodReading, metric: Metric) -> str:
    """Return how a value was got; a stored point says where it is, since k is a whole number."""
    if metric.name == SPEED and reading.state == "cannot reach":
        return "not as fast"
    return f"measured at {metric.show(reading.x)}" if reading.state == "measured" else reading.state


def _timed(points: pd.DataFrame) -> dict[str, Timed]:
    """Return what is known of the latency of points, by their cells."""
    rows = points[points[SPEED].notna()].iterrows()
    return {str(row["cell_id"]): said for _, row in rows if (said := Timed.of(row)) is not None}


def _budget_row(
    feasible: Feasible, metric: Metric, names: dict[str, str], timed: dict[str, Timed]
) -> dict[str, str]:
    arrow = "↓" if metric.better == "lower" else "↑"
    said = timed.get(feasible.cell)
    on_axis = metric.name == SPEED and said is not None
    value = said.speed if on_axis and said is not None else metric.show(feasible.x)
    row = {
        "Method": feasible.curve.label,
        f"{metric.label} ({metric.unit}) {arrow}": value if feasible.cell else "none measured",
        **({"Over dense ↑": "–" if said is None else said.speedup} if metric.name == SPEED else {}),
        "Rise over dense": as_rise(feasible.delta_nll),
        "Point": names.get(feasible.cell, "–"),
    }
    if metric.name == SPEED:  # nothing is interpolated along it
        return row
    return row | {
        "Curve crosses at": f"{metric.show(feasible.crossing)} (interpolated)" if feasible.crossing else "–"
    }
