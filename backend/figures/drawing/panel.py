"""Draws one panel with Matplotlib: series, bars, baselines and axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from .glyphs import readable
from .marks import BAR_WIDTH, DASHES, GREY, MARKERS
from .text import LETTER, titled, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backend.figures.page import Page
    from backend.figures.spec import Axis, Baseline, FigureSpec, Series


def draw_series(axes: Axes, spec: FigureSpec, page: Page) -> None:
    """Draw a figure of series into its axes.

    Args:
        axes: Where.
        spec: What.
        page: The page, for the sizes of lines and markers.
    """
    ends: dict[float, float] = {}
    for order, series in enumerate(spec.series):
        zorder = 3 + 0.01 * order
        if series.kind == "bar":
            _add_bars(axes, series, ends)
        elif series.kind == "front":
            _add_front(axes, series, page)
        else:
            _add_points(axes, series, page, zorder)
    # Lines and the axes' own margins first: a line's name is left out where the line is not seen.
    for baseline in spec.baselines:
        if baseline.value > 0 or not getattr(spec, baseline.axis).log:
            _add_line(axes, baseline)
    _set_axis(axes, spec.x, "x")
    _set_axis(axes, spec.y, "y")
    for baseline in spec.baselines:
        low, high = sorted(axes.get_ylim() if baseline.axis == "y" else axes.get_xlim())
        if low <= baseline.value <= high:
            _name_line(axes, baseline)


def title_axes(axes: Axes, spec: FigureSpec, page: Page, room_in: tuple[float, float]) -> None:
    """Write both axes' titles, in lines that fit.

    Args:
        axes: Where.
        spec: Whose axes.
        page: The page, for the font size.
        room_in: Width and height of the panel, inches.
    """
    around = 5 * page.font_size / 72  # what tick labels and the other axis' title take
    names = max((len(text) for _, text in spec.y.ticks), default=0) * LETTER * page.font_size / 72
    rooms = (0.9 * room_in[0] - max(around / 2, names), 0.95 * room_in[1] - around)
    for name, axis, room in (("xlabel", spec.x, rooms[0]), ("ylabel", spec.y, rooms[1])):
        title = titled(axis.label, axis.unit, axis.better) if axis.label else ""
        getattr(axes, f"set_{name}")(wrapped(title, room, page.font_size), linespacing=1.0)


def _add_front(axes: Axes, series: Series, page: Page) -> None:
    axes.step(
        series.x, series.y, where="post", color=series.style.colour, alpha=0.35,
        linewidth=4 * page.line_width, label=series.label, zorder=2,
    )  # fmt: skip


def _add_points(axes: Axes, series: Series, page: Page, zorder: float) -> None:
    colour, marker = series.style.colour, MARKERS[series.style.marker]
    axes.errorbar(
        series.x,
        series.y,
        xerr=_errors(series.x_err),
        yerr=_errors(series.y_err),
        label=series.label,
        color=colour,
        linestyle="none" if series.kind == "markers" else DASHES[series.style.dash],
        marker="none" if series.kind == "curve" else marker,
        markersize=page.marker_size,
        linewidth=page.line_width,
        elinewidth=0.7 * page.line_width,
        capsize=page.marker_size / 2,
        zorder=zorder,
    )
    if series.kind == "curve":
        return
    # Matplotlib puts the markers of errorbar 0.1 above its zorder.
    for chosen, fill in ((series.faded, GREY), (series.hollow, "white")):
        at = [i for i, flag in enumerate(chosen) if flag]
        if at:
            edge = GREY if fill == GREY else colour
            axes.plot(
                [series.x[i] for i in at], [series.y[i] for i in at], linestyle="none", marker=marker,
                markersize=page.marker_size, markerfacecolor=fill, markeredgecolor=edge, zorder=zorder + 0.2,
            )  # fmt: skip


def _add_bars(axes: Axes, series: Series, ends: dict[float, float]) -> None:
    """Draw bars that begin where those before them in the same row end."""
    starts = [ends.get(row, 0.0) for row in series.y]
    axes.barh(
        series.y, series.x, BAR_WIDTH, starts, color=series.style.colour, edgecolor="white", linewidth=0.5,
        label=series.label, zorder=3,
    )  # fmt: skip
    ends.update({row: start + length for row, start, length in zip(series.y, starts, series.x, strict=True)})


def _errors(values: Sequence[float | None]) -> list[float] | None:
    return [value or 0.0 for value in values] if any(values) else None


def _add_line(axes: Axes, baseline: Baseline) -> None:
    dash = DASHES["dot" if baseline.role == "claim" else "dash"]
    (axes.axhline if baseline.axis == "y" else axes.axvline)(
        baseline.value, color="black", linewidth=0.7, linestyle=dash, zorder=2
    )


def _name_line(axes: Axes, baseline: Baseline) -> None:
    """Write a line's name beside it: a baseline's at the line's start, a claim's at its end."""
    claim = baseline.role == "claim"
    below = False
    if baseline.axis == "y":
        place, coordinates = (1.0 if claim else 0.0, baseline.value), ("axes fraction", "data")
        # Near the upper edge there is more room below the line.
        below = axes.transAxes.inverted().transform(axes.transData.transform((1, baseline.value)))[1] > 0.9
        offset = -2 if below else 2
    else:
        place, coordinates, offset = (baseline.value, 1.0), ("data", "axes fraction"), -8
    name = axes.annotate(
        baseline.label, place, xycoords=coordinates, xytext=(-3 if claim else 3, offset),
        textcoords="offset points", ha="right" if claim else "left", va="top" if below else "baseline",
    )  # fmt: skip
    name.set_in_layout(False)


def _set_axis(axes: Axes, axis: Axis, which: Literal["x", "y"]) -> None:
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if axis.range:
        (axes.set_xlim if which == "x" else axes.set_ylim)(*axis.range)
    if axis.log:
        _number_decades(axes, which)
    if axis.ticks:
        positions, texts = zip(*axis.ticks, strict=True)
        (axes.set_xticks if which == "x" else axes.set_yticks)(positions, [readable(text) for text in texts])


def _number_decades(axes: Axes, which: Literal["x", "y"]) -> None:
    """Number a logarithmic axis: the fewer decades it spans, the more numbers between them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    span = high / low
    subs = (1.0, 2.0, 3.0, 5.0) if span < 30 else (1.0, 3.0) if span < 1_000 else (1.0,)
    ruler = axes.xaxis if which == "x" else axes.yaxis
    ruler.set_major_locator(LogLocator(subs=subs))
    ruler.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ruler.set_minor_formatter(NullFormatter())
