"""A generation's files: static HTML, JSON, LaTeX, PNG; and the way to Paper."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from backend.errors import UserError
from backend.figures import strip_files
from backend.figures.generations import Colour, shown_tokens
from backend.results.generations import Form, Generation
from backend.results.queries import StoredRun
from pages._shared.paper_open import ADDRESS_KEY, PAGE, of_specs, open_figure
from pages._shared.run_progress import UNFINISHED
from pages._shared.store import OpenStore


def exports(opened: OpenStore, shown: Generation, run: StoredRun, form: Form, colour: Colour) -> None:
    """Show the downloads of what is shown, once it is written."""
    if run.status in UNFINISHED or not any(shown_tokens(shown, side, form) for side in shown.sides):
        return
    files: list[tuple[str, str, str, Callable[[], bytes]]] = [
        ("HTML", "html", "text/html", lambda: strip_files.to_html(shown, form, colour, run)),
        ("JSON, everything", "json", "application/json",
         lambda: strip_files.to_json(shown, run)),
        ("LaTeX", "tex", "application/x-tex", lambda: strip_files.to_latex(shown, form, colour)),
        ("PNG, 300 dpi", "png", "image/png", lambda: strip_files.to_png(shown, form, colour)),
    ]  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center"):
        for label, ending, mime, content in files:
            st.download_button(
                label, content, f"{run.run_id}-{shown.item + 1}.{ending}", mime, on_click="ignore",
                icon=":material/download:", key=f"generation_{ending}",
            )  # fmt: skip
        if st.button(
            "To Paper", icon=":material/article:", key="generation_paper", type="tertiary",
            help="Save these strips as a figure and set it for a paper.",
        ):  # fmt: skip
            try:
                specs = strip_files.specs_of(shown, form, colour)
                id = open_figure(opened.home, of_specs(opened.store, *specs))
            except UserError as error:
                st.error(str(error), icon=":material/error:")
                return
            st.switch_page(PAGE, query_params={ADDRESS_KEY: id})
