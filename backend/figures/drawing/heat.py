"""Draws a heat map: its cells, their labels and the colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .glyphs import readable
from .scales import MISSING, STOPS, colour_at, ink_on, limits
from .text import LETTER, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backend.figures.heat_map import HeatMap

_FEW = 600
"""Up to so many cells there are thin gaps between them."""


def draw_heat(axes: Axes, heat: HeatMap, width_in: float, height_in: float, font_size: float) -> Any:
    """Draw the cells and name rows and columns; return the mesh, from which a colour bar can be made.

    Args:
        axes: Where.
        heat: What.
        width_in: About how wide the axes will be; labels that would overlap are left out or turned.
        height_in: About how high.
        font_size: Of the labels, points.
    """
    from matplotlib.colors import LinearSegmentedColormap

    low, high = limits(heat.scale, heat.values)
    rows, columns = len(heat.rows), len(heat.columns)
    few = rows * columns <= _FEW
    axes.set_facecolor(MISSING)
    axes.patch.set(hatch="////", edgecolor="#B5B5B5", linewidth=0)
    values = [[float("nan") if value is None else value for value in row] for row in heat.values]
    mesh = axes.pcolormesh(
        [i - 0.5 for i in range(columns + 1)],
        [i - 0.5 for i in range(rows + 1)],
        values or [[]],
        cmap=LinearSegmentedColormap.from_list(heat.scale.kind, STOPS[heat.scale.kind]),
        vmin=low,
        vmax=high,
        # Gaps in white, or edges in the cell's own colour: without them PDF viewers show hair lines.
        edgecolors="white" if few else "face",
        linewidth=0.5 if few else 0.1,
    )
    axes.grid(visible=False)
    axes.set_ylim(max(rows, 1) - 0.5, -0.5)
    axes.set_xlim(-0.5, max(columns, 1) - 0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    _label_columns(axes, [readable(name) for name in heat.columns], width_in, font_size)
    step = _step(rows, height_in, 1.3 * font_size / 72)
    axes.set_yticks(range(0, rows, step), [readable(name) for name in heat.rows[::step]])
    if heat.show_values:
        _write_values(axes, heat, low, high, font_size)
    return mesh


def _label_columns(axes: Axes, labels: Sequence[str], width_in: float, font_size: float) -> None:
    longest = max((len(label) for label in labels), default=0)
    level = (longest * LETTER + 0.6) * font_size / 72
    step = _step(len(labels), width_in, level)
    if step > 1 and longest > 4:  # words are turned and all kept as far as they fit; numbers are thinned
        step = _step(len(labels), width_in, 1.2 * font_size / 72)
        axes.set_xticks(
            range(0, len(labels), step), labels[::step], rotation=40, ha="right", rotation_mode="anchor"
        )
        return
    axes.set_xticks(range(0, len(labels), step), labels[::step])


def _step(count: int, room_in: float, needed_in: float) -> int:
    """Return every which label has room, from a row of round steps."""
    fitting = max(1.0, room_in / needed_in)
    return next((step for step in (1, 2, 5, 10, 20, 50, 100) if count <= step * fitting), 200)


def _write_values(axes: Axes, heat: HeatMap, low: float, high: float, font_size: float) -> None:
    for row, values in enumerate(heat.values):
        for column, value in enumerate(values):
            if value is None:
                continue
            ink = ink_on(colour_at(heat.scale.kind, (value - low) / (high - low)))
            axes.text(column, row, short(value), ha="center", va="center", color=ink, fontsize=font_size - 1)
