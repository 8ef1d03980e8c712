"""What the serif font can write.

For other letters Matplotlib would look for another font: one more to embed, and not the same on each machine.
"""

from __future__ import annotations

from functools import cache

from .text import SERIF

UNKNOWN = "□"


def readable(text: str) -> str:
    """Return text with a box in place of each letter that the font lacks."""
    known = _letters()
    return "".join(letter if letter == "\n" or ord(letter) in known else UNKNOWN for letter in text)


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=SERIF))).get_charmap())
