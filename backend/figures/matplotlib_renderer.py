"""Draws a figure spec for paper, with Matplotlib: exact inches, embedded fonts, the same bytes each time."""

from __future__ import annotations

import io
import threading
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from backend.figures.drawing.heat import draw_heat
from backend.figures.palette import GREY
from backend.figures.spec import BAR_WIDTH, Axis, FigureSpec, Series

Format = Literal["pdf", "svg", "png"]
FONT = "STIXGeneral"
"""A serif font that ships with Matplotlib, so that it is the same everywhere."""

_MARKERS = {
    "circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "triangle-down": "v", "x": "X",
    "cross": "P", "star": "*",
}  # fmt: skip
_DASHES: dict[str, Any] = {
    "solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.5)), "dashdot": (0, (4, 1.5, 1, 1.5)),
    "longdash": (0, (8, 2)), "longdashdot": (0, (8, 2, 1, 2)),
}  # fmt: skip
_METADATA: dict[Format, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}
_LOCK = threading.Lock()  # Matplotlib's settings belong to the whole process.


def to_bytes(
    spec: FigureSpec, format: Format, *, width: float = 5.5, height: float = 3.4, font_size: float = 8.0
) -> bytes:
    """Return the figure as a file.

    Args:
        spec: What to draw.
        format: ``pdf`` (TrueType fonts embedded), ``svg`` (text as text) or ``png`` (300 dpi).
        width: Inches, exactly.
        height: Inches, exactly.
        font_size: Points.
    """
    with _LOCK, mpl.rc_context(_settings(font_size)):
        figure = _draw(spec, width, height)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=format, metadata=_METADATA[format], dpi=300)
    return buffer.getvalue()


def to_figure(spec: FigureSpec, *, width: float = 5.5, height: float = 3.4, font_size: float = 8.0) -> Figure:
    """Return the Matplotlib figure itself; arguments as for :func:`to_bytes`."""
    with _LOCK, mpl.rc_context(_settings(font_size)):
        return _draw(spec, width, height)


def _settings(font_size: float) -> dict[str, Any]:
    return {
        "font.family": FONT,
        "mathtext.fontset": "stix",
        "font.size": font_size,
        "axes.labelsize": font_size,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "xtick.labelsize": font_size - 1,
        "ytick.labelsize": font_size - 1,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "legend.fontsize": font_size - 1,
        "legend.frameon": False,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "sparsity-lens",
    }


def _draw(spec: FigureSpec, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if spec.heat is not None:
        font_size = mpl.rcParams["xtick.labelsize"]
        mesh = draw_heat(axes, spec.heat, 0.7 * width, 0.75 * height, font_size)
        bar = figure.colorbar(mesh, ax=axes, label=spec.heat.scale.title, fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)
        axes.set_xlabel(spec.x.title)
        axes.set_ylabel(spec.y.title)
        return figure
    axes.grid(visible=True, color="#E4E2DF", linewidth=0.5)
    axes.set_axisbelow(True)
    ends: dict[float, float] = {}
    for order, series in enumerate(spec.series):
        if series.kind == "bar":
            _add_bars(axes, series, ends)
        else:
            _add_series(axes, series, 3 + 0.01 * order)
    for baseline in spec.baselines:
        line = {"color": "black", "linewidth": 0.7, "linestyle": _DASHES["dash"], "zorder": 2}
        (axes.axhline if baseline.axis == "y" else axes.axvline)(baseline.value, **line)
        _name_baseline(axes, baseline.value, baseline.label, baseline.axis)
    _set_axis(axes, spec.x, "x")
    _set_axis(axes, spec.y, "y")
    if len(spec.series) > 1 and (ends or not spec.y.ticks):
        columns = 2 if width < 4 else 3 if width < 6 else 4
        figure.legend(loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.2)
    return figure


def _add_series(axes: Axes, series: Series, zorder: float) -> None:
    colour, marker = series.style.colour, _MARKERS[series.style.marker]
    if series.kind == "front":
        axes.step(
            series.x,
            series.y,
            where="post",
            color=GREY,
            alpha=0.35,
            linewidth=4,
            label=series.label,
            zorder=2,
        )
        return
    axes.errorbar(
        series.x,
        series.y,
        xerr=_errors(series.x_err),
        yerr=_errors(series.y_err),
        label=series.label,
        color=colour,
        linestyle="none" if series.kind == "markers" else _DASHES[series.style.dash],
        marker="none" if series.kind == "curve" else marker,
        markersize=3.6,
        linewidth=1.0,
        elinewidth=0.7,
        capsize=1.8,
        zorder=zorder,
    )
    # Matplotlib puts the markers of errorbar 0.1 above its zorder.
    for chosen, fill in ((series.faded, GREY), (series.hollow, "white")):
        at = [i for i, flag in enumerate(chosen) if flag]
        if at:
            edge = GREY if fill == GREY else colour
            axes.plot(
                [series.x[i] for i in at], [series.y[i] for i in at], linestyle="none", marker=marker,
                markersize=3.6, markerfacecolor=fill, markeredgecolor=edge, zorder=zorder + 0.2,
            )  # fmt: skip


def _add_bars(axes: Axes, series: Series, ends: dict[float, float]) -> None:
    """Draw bars that begin where those before them in the same row end."""
    starts = [ends.get(row, 0.0) for row in series.y]
    axes.barh(
        series.y, series.x, BAR_WIDTH, starts, color=series.style.colour, edgecolor="white", linewidth=0.5,
        label=series.label, zorder=3,
    )  # fmt: skip
    ends.update({row: start + length for row, start, length in zip(series.y, starts, series.x, strict=True)})


def _errors(values: tuple[float | None, ...]) -> list[float] | None:
    return [value or 0.0 for value in values] if any(values) else None


def _name_baseline(axes: Axes, value: float, label: str, axis: Literal["x", "y"]) -> None:
    if axis == "y":
        axes.annotate(
            label, (0, value), xycoords=("axes fraction", "data"), xytext=(3, 2), textcoords="offset points"
        )
    else:
        axes.annotate(
            label, (value, 1), xycoords=("data", "axes fraction"), xytext=(3, -8), textcoords="offset points"
        )


def _set_axis(axes: Axes, axis: Axis, which: Literal["x", "y"]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        ruler = axes.xaxis if which == "x" else axes.yaxis
        ruler.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        ruler.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ruler.set_minor_formatter(NullFormatter())
    if axis.range:
        (axes.set_xlim if which == "x" else axes.set_ylim)(*axis.range)
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(axis.title)
    if axis.ticks:
        positions, texts = zip(*axis.ticks, strict=True)
        (axes.set_xticks if which == "x" else axes.set_yticks)(positions, texts)
