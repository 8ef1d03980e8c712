"""The legend on the screen: names in short lines, and the height that it adds to a figure.

Plotly wraps a legend in the browser and takes its rows from the plot. A figure's height is set before its
width is known, so the rows are counted for a phone, and a part of what they take there is added: on a wider
screen the plot is as tall as was asked for, on a phone not much lower.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from typing import Any

_LETTERS, _MANY, _LONG = 22, 38, 50
"""In a line of a name: with 22, two columns fit into a card of half a page and five across a whole one; with
38, one fits on a phone, for figures with a name of more than 50."""
_NARROW = 234
"""Width of a plot on a phone of 390 pixels, inside a card: the names stand below each other."""
_SYMBOL, _LETTER, _LINE, _GAP = 41.0, 5.4, 15.6, 3.4
"""Pixels: a symbol with the space around it, a letter's mean width, a line's height, between two rows."""
_BREAK, _BOUND = "<br>", "\N{NO-BREAK SPACE}"
_MOST = 0.3
"""Of the height that was asked for: more would push the plot below a window's edge where it is wide."""


def legend_names(labels: Sequence[str]) -> list[str]:
    """Return series' names in lines that are short enough for a legend of columns; safe as HTML.

    Args:
        labels: The legend's entries.
    """
    letters = _LETTERS if max(map(len, labels), default=0) <= _LONG else _MANY
    return [_BREAK.join(map(html.escape, _lines(label, letters))) for label in labels]


def with_legend(height: int, names: Sequence[str]) -> int:
    """Return the height of a figure whose plot keeps its own beside a legend of many lines.

    Args:
        height: Pixels, of the figure with a legend of one line.
        names: What :func:`legend_names` returned.
    """
    lines = [name.split(_BREAK) for name in names]
    in_a_row = sum(_SYMBOL + _LETTER * max(map(len, each)) for each in lines)
    if in_a_row <= _NARROW:
        return height
    more = sum(_LINE * len(each) + _GAP for each in lines) - _LINE - _GAP
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


def _lines(label: str, letters: int) -> list[str]:
    bound = re.sub(r" (?=[\d%])", _BOUND, label)  # a number stays with its name, a unit with its number
    lines = textwrap.wrap(bound, letters, break_long_words=False) or [""]
    return [line.replace(_BOUND, " ") for line in lines]
