"""The legend on the screen: names in short lines, and the height that it adds to a figure.

Plotly wraps a legend in the browser and takes its rows from the plot. A figure's height is set before its
width is known, so the rows are counted for a phone: there the plot keeps the height that was asked for, and
on a wider screen it is a little taller.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from typing import Any

_LETTERS = 22
"""In a line of a name: two columns fit into a card of half a page, five across a whole one."""
_NARROW = 234
"""Width of a plot on a phone of 390 pixels, inside a card: the names stand below each other."""
_SYMBOL, _LETTER, _LINE, _GAP = 41.0, 5.4, 15.6, 3.4
"""Pixels: a symbol with the space around it, a letter's mean width, a line's height, between two rows."""
_MOST = 0.6
"""Of the height that was asked for: more would make the plot too tall on a wide screen."""


def legend_name(label: str) -> str:
    """Return a series' name in lines that are short enough for a legend of columns; safe as HTML."""
    lines = "<br>".join(html.escape(line) for line in _lines(label))
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def with_legend(height: int, labels: Sequence[str]) -> int:
    """Return the height of a figure whose plot keeps its own beside a legend of many lines.

    Args:
        height: Pixels, of the figure with a legend of one line.
        labels: The legend's entries.
    """
    names = [_lines(label) for label in labels]
    in_a_row = sum(_SYMBOL + _LETTER * max(map(len, lines)) for lines in names)
    if in_a_row <= _NARROW:
        return height
    more = sum(_LINE * len(lines) + _GAP for lines in names) - _LINE - _GAP
    return height + round(min(more, _MOST * height))


def legend_layout(ink: str) -> dict[str, Any]:
    """Return Plotly's settings of the legend above a plot.

    Args:
        ink: The colour of its text.
    """
    return {
        "orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom",
        "itemwidth": 30, "traceorder": "normal", "title": {"text": ""}, "font": {"size": 12, "color": ink},
    }  # fmt: skip


def _lines(label: str) -> list[str]:
    bound = re.sub(r" (?=[\d%])", "\N{NO-BREAK SPACE}", label)  # a number stays with its name, a unit with it
    return textwrap.wrap(bound, _LETTERS, break_long_words=False) or [""]
