"""Draws a page with Matplotlib: exact inches, embedded fonts, the same bytes each time."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from .glyphs import readable
from .heat import draw_heat
from .marks import GRID
from .panel import draw_series, title_axes
from .strip import draw_strip, strip_width
from .text import SERIF, legend_columns, titled, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backend.figures.heat_map import ColourScale
    from backend.figures.page import Page

Format = Literal["pdf", "svg", "png"]
LOCK = threading.Lock()
"""Held while drawing: Matplotlib's settings belong to the whole process."""
_METADATA: dict[Format, dict[str, Any]] = {
    "pdf": {"CreationDate": None, "ModDate": None},
    "svg": {"Date": None},
    "png": {"Software": None},
}
_PLACES = {"below": "outside lower center", "above": "outside upper center", "right": "outside right center"}


def to_bytes(page: Page, format: Format) -> bytes:
    """Return a page as a file.

    Args:
        page: What to draw.
        format: ``pdf`` (TrueType fonts embedded), ``svg`` (text as text) or ``png``.

    Raises:
        UserWarning: The panels have no room on the page.
    """
    with LOCK, mpl.rc_context(_settings(page)), warnings.catch_warnings():
        # Panels without room: no picture is better than one with everything on top of everything.
        warnings.filterwarnings("error", message="constrained_layout not applied")
        buffer = io.BytesIO()
        _draw(page).savefig(buffer, format=format, metadata=_METADATA[format], dpi=page.dpi)
    return buffer.getvalue()


def to_figure(page: Page) -> Figure:
    """Return the Matplotlib figure itself."""
    with LOCK, mpl.rc_context(_settings(page)):
        return _draw(page)


def arranged(page: Page) -> Figure:
    """Return the Matplotlib figure after its layout: every part is where it is on paper."""
    with LOCK, mpl.rc_context(_settings(page)):
        figure = _draw(page)
        figure.draw_without_rendering()
        return figure


def _settings(page: Page) -> dict[str, Any]:
    small = page.font_size - 1
    return {
        "font.family": SERIF,
        "mathtext.fontset": "stix",
        "text.parse_math": False,  # a dollar in a name is a dollar
        "font.size": page.font_size,
        "axes.labelsize": page.font_size,
        "axes.titlesize": page.font_size,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "xtick.labelsize": small,
        "ytick.labelsize": small,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "legend.fontsize": small,
        "legend.frameon": False,
        "hatch.linewidth": 0.5,
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
        "svg.hashsalt": "sparsity-lens",
    }


def _draw(page: Page) -> Figure:
    figure = Figure(figsize=(page.width_in, page.height_in), layout="constrained")
    FigureCanvasAgg(figure)
    rows = -(-len(page.panels) // page.columns)
    grid = figure.subplots(rows, page.columns, squeeze=False, height_ratios=page.row_heights or None)
    places = [axes for row in grid for axes in row]
    for axes in places[len(page.panels) :]:
        axes.set_visible(False)
    for place in range(len(page.panels)):
        _draw_panel(figure, places[place], place, page)
    if page.title:
        figure.suptitle(page.title, fontsize=page.font_size + 1)
    _add_legend(figure, places[: len(page.panels)], page)
    for text in figure.findobj(Text):
        if readable(written := text.get_text()) != written:
            text.set_text(readable(written))
    return figure


def _draw_panel(figure: Figure, axes: Axes, place: int, page: Page) -> None:
    panel = page.panels[place]
    spec, room = panel.spec, panel_room(page, place)
    if panel.heading:
        axes.set_title(wrapped(panel.heading, room[0] - 0.55, page.font_size), loc="left", pad=4)
    if spec.strip is not None:
        mesh = draw_strip(axes, spec.strip, strip_width(room[0]), page.font_size)
        _add_colour_bar(figure, axes, mesh, spec.strip.scale, room[1], page)
        return
    title_axes(axes, spec, page, room)
    if spec.heat is None:
        if page.grid != "none":
            axes.grid(visible=True, axis=page.grid, color=GRID, linewidth=0.5)
        axes.set_axisbelow(True)
        draw_series(axes, spec, page)
        return
    mesh = draw_heat(axes, spec.heat, 0.7 * room[0], 0.75 * room[1], page.font_size - 1)
    _add_colour_bar(figure, axes, mesh, spec.heat.scale, room[1], page)


def _add_colour_bar(
    figure: Figure, axes: Axes, mesh: Any, scale: ColourScale, room_in: float, page: Page
) -> None:
    bar = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02)
    title = titled(scale.label, scale.unit, scale.better)
    bar.set_label(wrapped(title, 0.85 * room_in, page.font_size), linespacing=1.0)
    bar.outline.set_visible(False)


def panel_room(page: Page, place: int) -> tuple[float, float]:
    """Return about how wide and high the panel at a place is with its labels, inches."""
    rows = -(-len(page.panels) // page.columns)
    shares = page.row_heights or (1.0,) * rows
    labels = {s.label for p in page.panels if p.in_legend for s in p.spec.series}
    legend_in = 0.3 if page.legend in ("below", "above") and len(labels) > 1 else 0.0
    return page.width_in / page.columns, (page.height_in - legend_in) * shares[place // page.columns] / sum(
        shares
    )


def _add_legend(figure: Figure, places: Iterable[Axes], page: Page) -> None:
    """Add one legend for all panels; a name that several panels share stands in it once."""
    named: dict[str, Any] = {}
    for axes, panel in zip(places, page.panels, strict=True):
        if panel.in_legend:
            handles, labels = axes.get_legend_handles_labels()
            for handle, label in zip(handles, labels, strict=True):
                named.setdefault(label, handle)
    if page.legend == "none" or len(named) < 2:
        return
    look = {"handlelength": 2.6, "columnspacing": 1.2, "handles": list(named.values()), "labels": list(named)}
    if page.legend == "inside":
        next(axes for axes in figure.axes if axes.get_legend_handles_labels()[0]).legend(loc="best", **look)
    else:
        one = page.legend == "right"
        columns = 1 if one else legend_columns(list(named), page.width_in, page.font_size - 1)
        figure.legend(loc=_PLACES[page.legend], ncols=columns, **look)
