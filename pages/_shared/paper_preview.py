"""A figure for paper as it will stand there, at its true size."""

from __future__ import annotations

import base64
import html

import streamlit as st

from backend.errors import UserError
from backend.figures.drawing.text import SERIF
from backend.figures.paper import PaperFigure, to_page
from backend.figures.paper.files import drawn

CSS_PER_INCH = 96
_DPI = 2 * CSS_PER_INCH
"""Of the preview: sharp on a screen with two dots a pixel."""
_SHEET = "background: #ffffff; outline: 1px solid #80808060; outline-offset: -1px"
"""White in the dark theme too, with an edge that shows where the figure ends."""


def preview(figure: PaperFigure) -> bool:
    """Show a figure at exactly its size on paper; tell whether it could be drawn.

    A picture and not the SVG, whose text a browser without the font would set in another one.
    """
    page = to_page(figure)
    try:
        picture = _picture(figure.id, figure)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return False
    alt = html.escape(f"Preview. {' '.join(panel.spec.alt() for panel in figure.panels)}"[:1_000], quote=True)
    data = base64.b64encode(picture).decode()
    width, height = page.width_in * CSS_PER_INCH, page.height_in * CSS_PER_INCH
    style = f"display: block; max-width: none; width: {width:.2f}px; height: {height:.2f}px; {_SHEET}"
    st.html(
        '<div role="region" aria-label="Preview at true size" tabindex="0" style="overflow-x: auto">'
        f'<img alt="{alt}" src="data:image/png;base64,{data}" style="{style}"></div>'
    )
    st.caption(
        f"{page.width_in:g} × {page.height_in:g} inches, {page.font_size:g} pt {SERIF}: "
        "true size at 100 % zoom."
    )
    return True


def _draw(id: str, _figure: PaperFigure) -> bytes:
    settings = _figure.settings.model_copy(update={"dpi": _DPI})
    return drawn(_figure.changed(settings=settings), "png")


_picture = st.cache_data(_draw, show_spinner=False, max_entries=32)
