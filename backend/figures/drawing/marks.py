"""Markers, dashes and inks by their names in a figure's records."""

from __future__ import annotations

from typing import Any

BAR_WIDTH = 0.6
"""How much of its row a bar fills."""
GREY = "#8C8C8C"
"""Dominated points and the front."""
GRID = "#E4E2DF"
MARKERS = {
    "circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "triangle-down": "v", "x": "X",
    "cross": "P", "star": "*",
}  # fmt: skip
"""Matplotlib's codes."""
DASHES: dict[str, Any] = {
    "solid": "-", "dash": (0, (4, 2)), "dot": (0, (1, 1.5)), "dashdot": (0, (4, 1.5, 1, 1.5)),
    "longdash": (0, (8, 2)), "longdashdot": (0, (8, 2, 1, 2)),
}  # fmt: skip
"""Matplotlib's dashes, in line widths."""
