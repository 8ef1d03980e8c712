"""Colour scales of heat maps, the same for the screen and for paper.

Sequential: ColorBrewer's YlGnBu, whose lightness falls from end to end, so that it also survives a grey
print. Diverging: ColorBrewer's RdBu turned around. Both are told apart by readers with any colour vision
(Harrower and Brewer, "ColorBrewer.org", 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.figures.heat_map import ColourScale

STOPS: dict[str, tuple[str, ...]] = {
    "sequential": (
        "#FFFFD9", "#EDF8B1", "#C6E9B4", "#7ECDBB", "#40B5C4", "#1D90C0", "#225DA8", "#243392", "#081D58",
    ),
    "diverging": (
        "#053061", "#2A71B2", "#6BACD1", "#C2DDEC", "#F7F6F6", "#FBCCB4", "#E48066", "#BA2832", "#67001F",
    ),
    "grey": ("#FFFFFF", "#1A1A1A"),
}  # fmt: skip
"""Colours at equal distances from the lowest to the highest value."""
MISSING = "#E2E2E2"
"""The ground of cells without a value; hatched on paper."""


def limits(scale: ColourScale, values: Sequence[Sequence[float | None]]) -> tuple[float, float]:
    """Return the values at both ends of a scale: its own, or those that fit the data.

    A diverging scale reaches equally far to both sides of its centre.

    Args:
        scale: The scale.
        values: The values shown; None where there is none.
    """
    if scale.range:
        return scale.range[0], scale.range[1]
    known = [value for row in values for value in row if value is not None]
    if not known:
        return 0.0, 1.0
    if scale.kind == "diverging":
        reach = max(abs(value - scale.centre) for value in known) or 1.0
        return scale.centre - reach, scale.centre + reach
    low, high = min(known), max(known)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def colour_at(kind: str, share: float) -> tuple[float, float, float]:
    """Return the colour at a share of a scale's length, as red, green and blue from 0 to 1."""
    stops = _parsed(kind)
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    left = min(int(place), len(stops) - 2)
    red, green, blue = (a + (place - left) * (b - a) for a, b in zip(*stops[left : left + 2], strict=True))
    return red, green, blue


@cache
def _parsed(kind: str) -> list[tuple[float, ...]]:
    """Return a scale's stops as red, green and blue: a strip asks for hundreds of colours at once."""
    return [tuple(int(stop[i : i + 2], 16) / 255 for i in (1, 3, 5)) for stop in STOPS[kind]]


def ink_on(colour: tuple[float, float, float]) -> str:
    """Return black or white, whichever has more contrast on a colour (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#FFFFFF"


def rgb_text(colour: tuple[float, float, float]) -> str:
    """Return a colour as CSS writes it."""
    return "rgb({:.0f},{:.0f},{:.0f})".format(*(255 * part for part in colour))
