"""Picking a figure for Paper: the saved ones, one from a file, and deleting the open one."""

from __future__ import annotations

from collections import Counter
from textwrap import shorten

import streamlit as st

from backend.errors import UserError
from backend.figures.paper import PaperFigure
from backend.figures.paper.saved import SavedFigure, saved
from backend.home import Home
from pages._shared.paper_open import close, open_figure, show

_PICK = "paper_pick"
_IMPORTED = "paper_imported"
"""Key of the uploaded file that was imported last: it stays in its control."""


def saved_figures(home: Home) -> list[SavedFigure]:
    """Return the saved figures, the newest first; read again when their folder changed."""
    changed = home.figures.stat().st_mtime_ns if home.figures.is_dir() else 0
    found: list[SavedFigure] = _saved(str(home.root), changed)
    return found


def picker(home: Home, figure: PaperFigure | None) -> None:
    """Show the saved figures, the import of a file, and a button that deletes the open figure.

    Args:
        home: Where figures are saved.
        figure: The one that is shown, which may not be saved yet; None for none.
    """
    titles = _labels(saved_figures(home))
    shown = figure.id if figure is not None and figure.id in titles else None
    with st.container(horizontal=True, vertical_alignment="bottom", key="paper_picker"):
        if titles:
            st.session_state[_PICK] = shown
            st.selectbox(
                "Saved figure", list(titles), index=0 if shown else None, format_func=titles.__getitem__,
                key=_PICK, on_change=_pick, placeholder=f"Choose one of {len(titles)}", width=430,
            )  # fmt: skip
        with st.popover("Import", icon=":material/upload_file:", key="paper_import_popover"):
            _import(home)
        if shown is not None and st.button(
            "Delete", icon=":material/delete:", type="tertiary", key="paper_delete",
            help="Delete this figure from the saved ones.",
        ):  # fmt: skip
            close(home, shown)
            st.rerun()


def _pick() -> None:
    chosen = st.session_state.get(_PICK)
    if chosen:
        show(chosen)


def _import(home: Home) -> None:
    uploaded = st.file_uploader("The figure.json of a bundle or of a figure", ["json"], key="paper_import")
    if uploaded is None or uploaded.file_id == st.session_state.get(_IMPORTED):
        return
    try:
        id = open_figure(home, PaperFigure.from_json(uploaded.getvalue()))
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.session_state[_IMPORTED] = uploaded.file_id
    show(id)
    st.rerun()


def _labels(figures: list[SavedFigure]) -> dict[str, str]:
    """Return each figure's name by its id, each name once: the control tells its options apart by them."""
    labels = {each.id: _label(each) for each in figures}
    seen = Counter(labels.values())
    return {id: label if seen[label] == 1 else f"{label} ({id[:6]})" for id, label in labels.items()}


def _label(each: SavedFigure) -> str:
    panels = "" if each.panels == 1 else f" · {each.panels} panels"
    title = shorten(each.title, 40, placeholder=" …")
    return f"{title}{panels} · {each.saved_at:%d %b %H:%M} UTC"


def _read(root: str, changed: int) -> list[SavedFigure]:
    return saved(Home.resolve(root))


_saved = st.cache_data(_read, show_spinner=False, max_entries=4)
