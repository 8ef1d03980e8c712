"""Words of a figure that more than one renderer writes."""

from __future__ import annotations

SERIF = "STIXGeneral"
"""The font on paper: a serif that ships with Matplotlib, so that it is the same everywhere."""
SERIF_FILES = ("STIXGeneral.ttf", "STIXGeneralBol.ttf")
"""Its files in Matplotlib's font folder; a bundle carries copies."""


def titled(label: str, unit: str, better: str | None) -> str:
    """Return a quantity's title with unit and direction: "Time (ms, lower is better)"."""
    asides = [unit, f"{better} is better" if better else ""]
    inside = ", ".join(aside for aside in asides if aside)
    return f"{label} ({inside})" if inside else label


def short(value: float) -> str:
    """Return a value as it stands in a cell: three significant digits, no exponent for common sizes."""
    text = f"{value:.3g}"
    return (text if "e" not in text else f"{value:.1e}").replace("-", "−")


def letter_of(place: int) -> str:
    """Return a panel's letter: a, b, …, z, aa, ab, …"""
    first, last = divmod(place, 26)
    return (letter_of(first - 1) if first else "") + chr(ord("a") + last)
