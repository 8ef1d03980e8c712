"""Palettes: what each colour of the default palette becomes; markers and dashes stay."""

from __future__ import annotations

from dataclasses import dataclass

from backend.figures.palette import COLOURS
from backend.registry import Registry


@dataclass(frozen=True)
class Palette:
    """Seven colours in the order of the default ones, so that a method keeps its place in each palette.

    Attributes:
        title: Its name for people.
        colours: The colours.
        source: Who made it.
        heat: The scale of heat maps; None for the figure's own.
    """

    title: str
    colours: tuple[str, ...]
    source: str
    heat: str | None = None

    def colour(self, default: str) -> str:
        """Return what a colour of the default palette becomes; any other stays."""
        return self.colours[COLOURS.index(default)] if default in COLOURS else default


PALETTES: Registry[Palette] = Registry("palette")
"""The palettes in the order they are offered."""

for _name, _palette in {
    "okabe-ito": Palette("Okabe–Ito", COLOURS, "Okabe and Ito, Color Universal Design, 2008"),
    "tol-bright": Palette(
        "Tol bright",
        ("#4477AA", "#EE6677", "#000000", "#CCBB44", "#66CCEE", "#AA3377", "#228833"),
        "Paul Tol, Colour Schemes, SRON technical note, 2021",
    ),
    "grey": Palette(
        "Grey",
        ("#303030", "#7A7A7A", "#000000", "#989898", "#505050", "#B0B0B0", "#686868"),
        "for print in black; markers and dashes tell the series apart",
        heat="grey",
    ),
}.items():
    PALETTES.add(_name, _palette)
