"""One colour, marker and dash a method, the same everywhere; nothing is told by colour alone.

Colours: Okabe and Ito, "Color Universal Design" (2008), told apart by readers with any colour vision.
"""

from __future__ import annotations

import itertools

from pydantic import BaseModel, ConfigDict

from backend.figures.drawing.marks import GREY, OPEN

BLUE, VERMILLION, BLACK, ORANGE = "#0072B2", "#D55E00", "#000000", "#E69F00"
GREEN, SKY, PURPLE = "#009E73", "#56B4E9", "#CC79A7"
COLOURS = (BLUE, VERMILLION, BLACK, ORANGE, GREEN, SKY, PURPLE)
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "x", "cross", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
LIGHT_GREY = "#D9D9D9"
_ON_DARK = {BLACK: LIGHT_GREY}
"""Black would vanish on a dark page; the others keep 3 : 1 against it."""


class Style(BaseModel):
    """How a series looks; colours are those on white."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    colour: str
    marker: str
    dash: str

    def colour_on(self, dark: bool) -> str:
        """Return the colour on a light or a dark page."""
        return _ON_DARK.get(self.colour, self.colour) if dark else self.colour


STYLES: dict[str, Style] = {
    "dip": Style(colour=BLUE, marker="circle", dash="solid"),
    "gate_pruning": Style(colour=VERMILLION, marker="square", dash="dash"),
    "dense": Style(colour=BLACK, marker="star", dash="solid"),
    "up_pruning": Style(colour=ORANGE, marker="triangle-up", dash="dashdot"),
    "glu_pruning": Style(colour=GREEN, marker="diamond", dash="longdash"),
    "magnitude_norm": Style(colour=SKY, marker="triangle-down", dash="longdashdot"),
    "glu_oracle": Style(colour=PURPLE, marker="cross", dash="dot"),
    "dip_ca": Style(colour=SKY, marker="star", dash="dash"),
    "random": Style(colour=BLACK, marker="x", dash="dot"),
    "corrected_gxo": Style(colour=VERMILLION, marker="triangle-down", dash="solid"),
    "dense_magnitude": Style(colour=BLUE, marker="square", dash="dot"),
    "gxo": Style(colour=ORANGE, marker="diamond", dash="solid"),
    "snip": Style(colour=GREEN, marker="square", dash="dashdot"),
    "dense_magnitude_norm": Style(colour=SKY, marker="circle", dash="dot"),
    "gradient": Style(colour=PURPLE, marker="x", dash="dash"),
    "integrated_gradients": Style(colour=BLACK, marker="cross", dash="dashdot"),
    "cats": Style(colour=VERMILLION, marker="star", dash="dot"),
    "predictor": Style(colour=GREEN, marker="triangle-up", dash="dash"),
    "expected_fisher": Style(colour=GREEN, marker="star", dash="longdash"),
    "prompt_attribution": Style(colour=PURPLE, marker="triangle-up", dash="longdashdot"),
    "refreshed_attribution": Style(colour=PURPLE, marker="diamond", dash="dashdot"),
    "original": Style(colour=BLACK, marker="diamond", dash="dot"),
    "cache_prior": Style(colour=VERMILLION, marker="circle", dash="dash"),
    "max_rank": Style(colour=GREEN, marker="triangle-up", dash="solid"),
    "cumulative_threshold": Style(colour=ORANGE, marker="diamond", dash="dash"),
    "expert_pruning": Style(colour=SKY, marker="square", dash="longdash"),
    "top_p": Style(colour=PURPLE, marker="triangle-down", dash="dot"),
    "adaptive_k": Style(colour=BLUE, marker="cross", dash="longdash"),
    "adapmoe": Style(colour=BLACK, marker="triangle-up", dash="longdash"),
    "random_swap": Style(colour=ORANGE, marker="x", dash="dashdot"),
}
FRONT = Style(colour=GREY, marker="circle", dash="solid")


def style_of(method: str) -> Style:
    """Return a method's style: the fixed one, else one that no other method of the registry has."""
    return STYLES.get(method) or _further_styles().get(method) or FRONT


def beside_style(style: Style) -> Style:
    """Return the style of the same method in another precision: open markers and the next dash."""
    dash = DASHES[(DASHES.index(style.dash) + 1) % len(DASHES)]
    return style.model_copy(update={"marker": f"{style.marker}{OPEN}", "dash": dash})


def variant_style(method: str, place: int) -> Style:
    """Return the style of a method under another setting: its colour, a marker and a dash of their own.

    Markers are filled, since open ones mean what was interpolated, and none that a method of this colour has.

    Args:
        method: The method's name.
        place: How many of its variants come before; the first has the method's own style.
    """
    own = style_of(method)
    if place == 0:
        return own
    used = {style.marker for style in STYLES.values() if style.colour == own.colour} | {own.marker}
    free = [marker for marker in MARKERS if marker not in used]
    dash = DASHES[(DASHES.index(own.dash) + place) % len(DASHES)]
    return own.model_copy(update={"marker": free[(place - 1) % len(free)], "dash": dash})


def _further_styles() -> dict[str, Style]:
    """Give each registered method without a fixed style the next free one, in the registry's order."""
    from backend.methods import every_method

    taken = set(STYLES.values())
    # Marker and colour turn at different speeds, so that neighbours differ in all three.
    every = (
        Style(colour=COLOURS[i % 7], marker=MARKERS[(i + turn) % 8], dash=DASHES[(i + turn) % 6])
        for turn, i in itertools.product(range(1, 8), range(7))
    )
    free = (style for style in every if style not in taken)
    return dict(zip((name for name in every_method() if name not in STYLES), free, strict=False))
