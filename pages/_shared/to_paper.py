"""The way from any figure to Paper: one click makes a figure of it, one adds it to the one that is open."""

from __future__ import annotations

import streamlit as st

from backend.errors import UserError
from backend.figures import FigureSpec
from pages._shared.paper_open import ADDRESS_KEY, PAGE, find, of_specs, open_figure, opened_id, with_spec
from pages._shared.store import open_store


def to_paper(spec: FigureSpec, key: str) -> None:
    """Show the button To Paper and, while a figure is open there, one that adds to it.

    Args:
        spec: The figure of the page.
        key: Names it on its page.
    """
    if st.button(
        "To Paper", icon=":material/article:", key=f"{key}_paper", type="tertiary",
        help="Save this figure and set it for a paper: width, fonts, formats, bundle.",
    ):  # fmt: skip
        _go(spec, add=False)
    if opened_id() and st.button(
        "Add as panel", icon=":material/add:", key=f"{key}_panel", type="tertiary",
        help="Add this figure as a panel to the one that is open in Paper.",
    ):  # fmt: skip
        _go(spec, add=True)


def _go(spec: FigureSpec, *, add: bool) -> None:
    opened = open_store()
    try:
        if add:
            figure = with_spec(opened.store, find(opened.home, opened_id()), spec)
        else:
            figure = of_specs(opened.store, spec)
        id = open_figure(opened.home, figure)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.switch_page(PAGE, query_params={ADDRESS_KEY: id})
