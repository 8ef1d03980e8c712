"""A page: figures as they stand on paper, with every size decided. What Matplotlib and PGFPlots draw."""

from __future__ import annotations

from typing import Literal

from backend.figures.record import Record
from backend.figures.spec import FigureSpec

Grid = Literal["none", "x", "y", "both"]
LegendPlace = Literal["below", "above", "right", "inside", "none"]


class PagePanel(Record):
    """One panel.

    Attributes:
        spec: What is drawn, after all settings.
        heading: Stands above it: "(a) Phi-3-Medium", "" for nothing.
        in_legend: Its series are in the legend.
    """

    spec: FigureSpec
    heading: str = ""
    in_legend: bool = True


class Page(Record):
    """Panels in a grid, filled row by row.

    Attributes:
        panels: The panels.
        columns: Panels in a row.
        width_in: Width of the whole, inches, exactly.
        height_in: Height of the whole, inches, exactly.
        row_heights: Heights of the rows as ratios; empty for equal ones.
        font_size: Of labels, points; ticks and legend are one point smaller.
        line_width: Points.
        marker_size: Points.
        grid: Which grid lines there are.
        legend: Where the legend is.
        title: Stands above all, "" for nothing.
        dpi: Dots an inch of the PNG.
    """

    panels: tuple[PagePanel, ...]
    columns: int = 1
    width_in: float = 5.5
    height_in: float = 3.4
    row_heights: tuple[float, ...] = ()
    font_size: float = 8.0
    line_width: float = 1.0
    marker_size: float = 3.6
    grid: Grid = "both"
    legend: LegendPlace = "below"
    title: str = ""
    dpi: int = 300


def is_in_legend(spec: FigureSpec) -> bool:
    """Tell whether a figure's series need a legend: not where each is named on the axis."""
    return not spec.y.ticks or any(series.kind == "bar" for series in spec.series)
