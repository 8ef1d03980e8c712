"""Draws a token strip: a text in lines, each token on the colour of its value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .glyphs import readable
from .scales import STOPS, colour_at, ink_on, limits
from .text import SERIF

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from backend.figures.token_strip import TokenStrip

LINE = 1.7
"""Height of a line, in font sizes."""
_BESIDE_IN = 1.25
"""What the colour bar beside the text and the labels of panels above it take, inches."""


@dataclass(frozen=True)
class Box:
    """Where a token is.

    Attributes:
        text: What is written: a line break as its sign.
        line: Its line, from 0.
        left_in: Inches from the left edge.
        width_in: Inches.
    """

    text: str
    line: int
    left_in: float
    width_in: float


def strip_width(room_in: float) -> float:
    """Return the width of a strip's lines in a panel of some width, inches."""
    return max(0.5 * room_in, room_in - _BESIDE_IN)


def line_height(font_size: float) -> float:
    """Return the height of a line, inches."""
    return LINE * font_size / 72


def arrange(tokens: Sequence[str], width_in: float, font_size: float) -> list[Box]:
    """Return the place of each token: in lines of a width, a new one after each line break.

    Args:
        tokens: The tokens.
        width_in: Width of a line, inches.
        font_size: Points.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=SERIF, size=font_size)
    boxes: list[Box] = []
    line, left = 0, 0.0
    for token in tokens:
        text = readable(token.replace("\n", "↵").replace("\t", " "))
        width = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72 + 0.02
        if left and left + width > width_in:
            line, left = line + 1, 0.0
        boxes.append(Box(text, line, left, width))
        left += width
        if token.endswith("\n"):
            line, left = line + 1, 0.0
    return boxes


def lines_of(boxes: Sequence[Box]) -> int:
    """Return how many lines there are, at least one."""
    return max((box.line for box in boxes), default=0) + 1


def draw_strip(axes: Axes, strip: TokenStrip, width_in: float, font_size: float) -> Any:
    """Draw the tokens from the upper left corner; return what a colour bar can be made of.

    Args:
        axes: Where.
        strip: What.
        width_in: Width of the lines, inches.
        font_size: Points.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import ScaledTranslation

    low, high = limits(strip.scale, [strip.values])
    # In inches from the corner, wherever the layout puts it: text does not grow with its axes.
    corner: Any = axes.transAxes
    inches = axes.figure.dpi_scale_trans + ScaledTranslation(0, 1, corner)
    height = line_height(font_size)
    for box, value in zip(arrange(strip.tokens, width_in, font_size), strip.values, strict=True):
        ink, top = "#000000", -box.line * height
        if value is not None:
            colour = colour_at(strip.scale.kind, (value - low) / (high - low))
            ink = ink_on(colour)
            patch = Rectangle(
                (box.left_in, top - 0.92 * height), box.width_in, 0.84 * height, transform=inches,
                facecolor=colour, edgecolor="white", linewidth=0.4, clip_on=False,
            )  # fmt: skip
            axes.add_patch(patch)
        axes.text(
            box.left_in + 0.01, top - 0.5 * height, box.text, transform=inches, color=ink, fontsize=font_size,
            va="center_baseline", clip_on=False, in_layout=False,
        )  # fmt: skip
    axes.set_axis_off()
    colours = LinearSegmentedColormap.from_list(strip.scale.kind, STOPS[strip.scale.kind])
    return ScalarMappable(Normalize(low, high), colours)
