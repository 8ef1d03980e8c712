"""Draws a figure spec for the screen, with Plotly."""

from __future__ import annotations

import html
import math
from typing import Any

import plotly.graph_objects as go

from backend.figures.drawing.marks import BAR_WIDTH, GREY, OPEN
from backend.figures.drawing.scales import MISSING, STOPS, limits
from backend.figures.drawing.text import short
from backend.figures.heat_map import HeatMap
from backend.figures.plotly_legend import legend_layout, legend_names, with_legend
from backend.figures.plotly_strip import strip_layout, strip_trace
from backend.figures.spec import Axis, Baseline, FigureSpec, Series

CONFIG: dict[str, Any] = {
    "showSendToCloud": False,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
"""Plotly's settings wherever a figure is shown: no upload button, no logo."""

_INK = {False: "#161514", True: "#EDEBE8"}
_GRID = {False: "#E4E2DF", True: "#3A3834"}
_TICKS = 40
"""At most so many rows or columns of a heat map are named."""
_PAPER = {False: "#FFFFFF", True: "#040404"}


def to_plotly(spec: FigureSpec, *, dark: bool = False, height: int = 480, legend: bool = True) -> go.Figure:
    """Return the figure for the screen; each point carries its cell's id as custom data.

    Args:
        spec: What to draw.
        dark: For a dark page.
        height: Pixels, with a legend of one line; more lines are added to it, so that the plot keeps its own.
        legend: Whether there is a legend.
    """
    # A logarithmic axis has no place for zero.
    lines = [line for line in spec.baselines if line.value > 0 or not getattr(spec, line.axis).log]
    names = legend_names([series.label for series in spec.series])
    layout = {
        "xaxis": _axis(spec.x, dark),
        "yaxis": _axis(spec.y, dark),
        "shapes": [_baseline(baseline, dark) for baseline in lines],
        "annotations": [_baseline_name(baseline, getattr(spec, baseline.axis), dark) for baseline in lines],
        "height": with_legend(height, names) if legend else height,
        "margin": {"l": 10, "r": 16, "t": 10, "b": 10},
        "showlegend": legend,
        "barmode": "stack",
        "legend": legend_layout(_INK[dark]),
        "hoverlabel": {"align": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": _INK[dark]},
    }
    if spec.heat is not None:
        layout |= _heat_layout(spec, spec.heat, dark)
    if spec.strip is not None:
        layout |= strip_layout(spec.strip, dark)
    traces = [_trace(series, name, dark) for series, name in zip(spec.series, names, strict=True)]
    traces += [] if spec.heat is None else [_heat(spec.heat, dark)]
    traces += [] if spec.strip is None else [strip_trace(spec.strip, dark)]
    # Made at once: Plotly checks everything anew with each update of a figure, which takes far longer.
    return go.Figure({"data": traces, "layout": layout})


def to_html(spec: FigureSpec) -> bytes:
    """Return the figure as one HTML file that needs nothing from the network (about 5 MB, with Plotly)."""
    figure = to_plotly(spec, height=600)
    figure.update_layout(
        title={"text": html.escape(spec.title)},
        margin={"t": 110},
        template="plotly_white",
        paper_bgcolor=_PAPER[False],
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, config=CONFIG)
    return page.encode()


def _trace(series: Series, name: str, dark: bool) -> dict[str, Any]:
    if series.kind == "bar":
        return _bar(series, name, dark)
    colour = series.style.colour_on(dark)
    front = series.kind == "front"
    fills = [GREY if faded else colour for faded in series.faded] or colour
    filled = series.style.marker.removesuffix(OPEN)
    symbols = [f"{filled}{OPEN}" if hollow else series.style.marker for hollow in series.hollow]
    return {
        "type": "scatter",
        "name": name,
        "x": list(series.x),
        "y": list(series.y),
        "mode": {"line": "lines+markers", "markers": "markers"}.get(series.kind, "lines"),
        "line": {
            "color": colour, "dash": series.style.dash, "width": 5 if front else 1.8,
            "shape": "hv" if front else "linear",
        },
        "opacity": 0.4 if front else 1.0,
        "marker": {
            "color": fills, "symbol": symbols or series.style.marker, "size": 9,
            "line": {"width": 1.5 if series.hollow or series.style.marker != filled else 0, "color": fills},
        },
        "error_x": _errors(series.x_err, colour),
        "error_y": _errors(series.y_err, colour),
        "customdata": list(series.ids) or None,
        "text": _hovers(series),
        "hoverinfo": "text" if series.details else "skip",
    }  # fmt: skip


def _bar(series: Series, name: str, dark: bool) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": name,
        "x": list(series.x),
        "y": list(series.y),
        "orientation": "h",
        "width": BAR_WIDTH,
        "marker": {"color": series.style.colour_on(dark), "line": {"width": 1, "color": _PAPER[dark]}},
        "text": _hovers(series),
        "textposition": "none",
        "hoverinfo": "text" if series.details else "skip",
    }


def _heat(heat: HeatMap, dark: bool) -> dict[str, Any]:
    low, high = limits(heat.scale, heat.values)
    stops = STOPS[heat.scale.kind]
    unit = f" {heat.scale.unit}" if heat.scale.unit else ""
    hovers = [
        [
            html.escape(f"{row}, {column}: " + ("no value" if value is None else f"{short(value)}{unit}"))
            for column, value in zip(heat.columns, values, strict=True)
        ]
        for row, values in zip(heat.rows, heat.values, strict=True)
    ]
    gap = 1 if len(heat.rows) * len(heat.columns) <= 600 else 0
    return {
        "type": "heatmap",
        "name": html.escape(heat.scale.label),
        # Positions, not names: two rows may be called the same.
        "x": list(range(len(heat.columns))),
        "y": list(range(len(heat.rows))),
        "z": [list(row) for row in heat.values],
        "zmin": low,
        "zmax": high,
        "colorscale": [[i / (len(stops) - 1), stop] for i, stop in enumerate(stops)],
        "xgap": gap,
        "ygap": gap,
        "hoverinfo": "text",
        "text": hovers,
        "texttemplate": "%{z:.3~g}" if heat.show_values else "",
        "colorbar": {
            "title": {"text": html.escape(heat.scale.title), "side": "right"},
            "outlinewidth": 0,
            "thickness": 14,
            "tickfont": {"color": _INK[dark]},
        },
    }


def _heat_layout(spec: FigureSpec, heat: HeatMap, dark: bool) -> dict[str, Any]:
    ends = {"xaxis": (spec.x, heat.columns), "yaxis": (spec.y, heat.rows)}
    drawn: dict[str, Any] = {"plot_bgcolor": MISSING}
    for key, (axis, names) in ends.items():
        step = -(-len(names) // _TICKS)
        last = len(names) - 0.5
        drawn[key] = _axis(axis, dark) | {
            "tickvals": list(range(0, len(names), step)),
            "ticktext": [html.escape(name) for name in names[::step]],
            "range": [-0.5, last] if key == "xaxis" else [last, -0.5],
            "showgrid": False,
            "showline": False,
            "ticks": "",
        }
    return drawn


def _hovers(series: Series) -> list[str] | None:
    return [html.escape(detail).replace("\n", "<br>") for detail in series.details] or None


def _errors(values: tuple[float | None, ...], colour: str) -> dict[str, Any] | None:
    if not any(values):
        return None
    return {
        "type": "data",
        "array": [value or 0 for value in values],
        "thickness": 1.2,
        "width": 4,
        "color": colour,
    }


def _axis(axis: Axis, dark: bool) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "title": {"text": _title(axis), "standoff": 12, "font": {"color": _INK[dark], "size": 14}},
        "automargin": True,
        "gridcolor": _GRID[dark],
        "zeroline": False,
        "linecolor": GREY,
        "showline": True,
        "ticks": "outside",
        "tickcolor": GREY,
    }
    if axis.log:
        drawn |= {"type": "log", "dtick": "D2" if _decades(axis) < 1.3 else 1, "tickformat": "~g"}
    if axis.range:
        drawn["range"] = [math.log10(end) for end in axis.range] if axis.log else list(axis.range)
    if axis.ticks:
        positions, texts = zip(*axis.ticks, strict=True)
        drawn |= {
            "tickvals": list(positions),
            "ticktext": [html.escape(text) for text in texts],
            "showgrid": False,
        }
    return drawn


def _title(axis: Axis) -> str:
    """Return the title with unit and direction on a line of their own, so that it fits a narrow chart."""
    aside = axis.title.removeprefix(axis.label).strip(" ()")
    name = html.escape(axis.label)
    return f'{name}<br><span style="font-size:12px">{html.escape(aside)}</span>' if aside else name


def _decades(axis: Axis) -> float:
    return math.log10(axis.range[1] / axis.range[0]) if axis.range else 9.0


def _baseline(baseline: Baseline, dark: bool) -> dict[str, Any]:
    line = {"color": _INK[dark], "width": 1, "dash": "dot" if baseline.role == "claim" else "dash"}
    ends = {"x0": 0, "x1": 1, "y0": baseline.value, "y1": baseline.value, "xref": "x domain", "yref": "y"}
    if baseline.axis == "x":
        ends = {"x0": baseline.value, "x1": baseline.value, "y0": 0, "y1": 1, "xref": "x", "yref": "y domain"}
    return {"type": "line", "line": line, **ends}


def _baseline_name(baseline: Baseline, axis: Axis, dark: bool) -> dict[str, Any]:
    """Return a line's name: a baseline's at the line's start, a claim's at its end."""
    # Of a logarithmic axis annotations take the logarithm, shapes the value itself.
    value = math.log10(baseline.value) if axis.log else baseline.value
    end = 1 if baseline.role == "claim" else 0
    place = {"x": end, "y": value, "xref": "x domain", "yref": "y"}
    if baseline.axis == "x":
        place = {"x": value, "y": 1, "xref": "x", "yref": "y domain"}
    return {
        "text": html.escape(baseline.label), "showarrow": False, "font": {"color": _INK[dark]},
        "xanchor": "right" if end else "left", "yanchor": "bottom" if baseline.axis == "y" else "top",
        **place,
    }  # fmt: skip
