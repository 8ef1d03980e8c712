"""Words of a figure that more than one renderer writes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

SERIF = "STIXGeneral"
"""The font on paper: a serif that ships with Matplotlib, so that it is the same everywhere."""
SERIF_FILES = ("STIXGeneral.ttf",)
"""Its files in Matplotlib's font folder; a bundle carries copies."""

LETTER = 0.46
"""Mean width of a letter of that font, in font sizes."""


def titled(label: str, unit: str, better: str | None) -> str:
    """Return a quantity's title with unit and direction: "Time (ms, lower is better)"."""
    asides = [unit, f"{better} is better" if better else ""]
    inside = ", ".join(aside for aside in asides if aside)
    return f"{label} ({inside})" if inside else label


def short(value: float) -> str:
    """Return a value as it stands in a cell: three significant digits, no exponent for common sizes."""
    text = f"{value:.3g}"
    return (text if "e" not in text else f"{value:.1e}").replace("-", "−")


def counted(count: int, noun: str) -> str:
    """Return a number of things: "1 token", "1,024 tokens"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def letter_of(place: int) -> str:
    """Return a panel's letter: a, b, …, z, aa, ab, …"""
    first, last = divmod(place, 26)
    return (letter_of(first - 1) if first else "") + chr(ord("a") + last)


def wrapped(text: str, room_in: float, font_size: float) -> str:
    """Return text in as many lines as its room needs, the part in brackets on lines of its own.

    Args:
        text: What is written.
        room_in: Inches.
        font_size: Points.
    """
    letters = max(10, int(room_in / (LETTER * font_size / 72)))
    if len(text) <= letters:
        return text
    name, bracket, aside = text.rpartition(" (")
    parts = [name, f"({aside}"] if bracket and text.endswith(")") else [text]
    return "\n".join(_lines(part, letters) for part in parts)


def _lines(text: str, letters: int) -> str:
    """Return text in as few lines as fit, all of them about equally long."""
    count = len(textwrap.wrap(text, letters, break_long_words=False))
    while letters > 1 and len(textwrap.wrap(text, letters - 1, break_long_words=False)) <= count:
        letters -= 1
    return "\n".join(textwrap.wrap(text, letters, break_long_words=False))


def legend_columns(labels: Sequence[str], width_in: float, font_size: float) -> int:
    """Return how many columns a legend has: as many as fit, each as wide as its longest entry.

    Args:
        labels: Its entries in order, filled in column by column; at least one.
        width_in: Its room, inches.
        font_size: Points.
    """
    for columns in range(len(labels), 1, -1):
        rows = math.ceil(len(labels) / columns)
        longest = [max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows)]
        # 0.52: PGFPlots writes in the paper's font, which may be wider; 4.9: the line and its gaps.
        if sum(0.52 * letters + 4.9 for letters in longest) * font_size / 72 <= width_in:
            return len(longest)
    return 1
