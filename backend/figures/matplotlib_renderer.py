"""Draws one figure spec for paper as it is; :mod:`backend.figures.paper` has settings and several panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.figures.drawing import page as drawing
from backend.figures.drawing.page import Format
from backend.figures.page import Page, PagePanel, is_in_legend
from backend.figures.spec import FigureSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Format", "to_bytes", "to_figure"]


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
    return drawing.to_bytes(_page(spec, width, height, font_size), format)


def to_figure(spec: FigureSpec, *, width: float = 5.5, height: float = 3.4, font_size: float = 8.0) -> Figure:
    """Return the Matplotlib figure itself; arguments as for :func:`to_bytes`."""
    return drawing.to_figure(_page(spec, width, height, font_size))


def _page(spec: FigureSpec, width: float, height: float, font_size: float) -> Page:
    panel = PagePanel(spec=spec, in_legend=is_in_legend(spec))
    return Page(panels=(panel,), width_in=width, height_in=height, font_size=font_size)
