"""Every control of a figure for paper; the page's form, the recipe's keys and the help come from here."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from backend.errors import UserError
from backend.figures.page import Grid, LegendPlace
from backend.figures.paper.palettes import PALETTES
from backend.figures.paper.venues import VENUES
from backend.registry import Registry
from backend.settings import Settings, setting

Scale = Literal["figure", "linear", "log"]
CUSTOM = "custom"
"""The venue of a width of one's own."""


class PaperSettings(Settings):
    """How a figure looks on paper."""

    venue: str = setting("neurips", f"Where the paper goes: {', '.join(VENUES)}, or {CUSTOM}.")
    span: Literal["column", "page"] = setting(
        "page", "One column or the whole width, where the venue's pages have two columns."
    )
    width_in: float | None = setting(None, "Width with the venue 'custom'.", unit="inches", ge=1.0, le=20.0)
    height_in: float | None = setting(
        None, "Height of the whole figure; by default what its panels need.", unit="inches", ge=0.8, le=20.0
    )
    columns: int | None = setting(None, "Panels in a row; by default up to three.", unit="panels", ge=1, le=6)
    font_size: float = setting(
        8.0, "Labels; ticks and legend are one point smaller.", unit="points", ge=5.0, le=14.0
    )
    line_width: float = setting(1.0, "Width of lines.", unit="points", ge=0.3, le=4.0)
    marker_size: float = setting(3.6, "Size of markers.", unit="points", ge=1.0, le=12.0)
    palette: str = setting("okabe-ito", f"Colours: {', '.join(PALETTES)}.")
    markers: bool = setting(True, "Mark the points on lines.")
    grid: Grid = setting("both", "Grid lines.")
    legend: LegendPlace = setting("below", "Where the one legend of all panels is.")
    x_scale: Scale = setting("figure", "Horizontal axes: as the figure has them, linear or logarithmic.")
    y_scale: Scale = setting("figure", "Vertical axes: as the figure has them, linear or logarithmic.")
    shared_axes: bool = setting(True, "Panels that show the same quantity share its range and its title.")
    dominated: bool = setting(True, "Show points that another usable point beats, in grey.")
    front: bool = setting(True, "Draw the Pareto front.")
    error_bars: bool = setting(True, "Draw standard errors.")
    baselines: bool = setting(True, "Draw the dense model and other baselines as lines.")
    claims: bool = setting(True, "Draw what a paper claims as lines.")
    directions: bool = setting(True, "Say on each axis which direction is better.")
    letters: bool = setting(True, "Letter the panels where there are several.")
    titles: bool = setting(True, "Write the panels' titles where there are several.")
    title: bool = setting(False, "Write the figure's title above it.")
    dpi: int = setting(300, "Resolution of the PNG.", unit="dots per inch", ge=72, le=1200)

    @property
    def width(self) -> float:
        """Width of the figure in inches: the venue's, or the custom one."""
        if self.venue == CUSTOM:
            return self.width_in or 5.5
        venue = VENUES[self.venue]
        return venue.column_in if self.span == "column" else venue.page_in

    @field_validator("venue")
    @classmethod
    def _known_venue(cls, name: str) -> str:
        return name if name == CUSTOM else _known(name, VENUES)

    @field_validator("palette")
    @classmethod
    def _known_palette(cls, name: str) -> str:
        return _known(name, PALETTES)

    @model_validator(mode="after")
    def _width_of_its_own(self) -> Self:
        if (self.venue == CUSTOM) != (self.width_in is not None):
            raise ValueError(f"width_in goes with the venue '{CUSTOM}', and that venue needs it")
        return self


def _known(name: str, registry: Registry[Any]) -> str:
    try:
        registry[name]
    except UserError as error:
        raise ValueError(str(error)) from error
    return name
