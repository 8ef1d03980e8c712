"""Paper: a figure at a venue's exact width, previewed at its true size, as files for a submission."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.errors import UserError
from backend.figures import FigureSpec
from backend.figures.paper import Panel, PaperFigure, PaperSettings
from backend.figures.recipes import RECIPES, Stored
from pages._shared.evaluation import say_empty
from pages._shared.navigation import draw
from pages._shared.paper_compose import compose_panel
from pages._shared.paper_controls import first_controls, more_controls, seed, seeded
from pages._shared.paper_downloads import downloads
from pages._shared.paper_open import (
    asked_id,
    find,
    of_specs,
    open_figure,
    opened_id,
    replace,
    show,
    with_spec,
)
from pages._shared.paper_panels import panels_section, title_field
from pages._shared.paper_picker import picker, saved_figures
from pages._shared.paper_preview import preview
from pages._shared.store import OpenStore, evaluations, open_store
from pages._shared.text import quoted

_HOW = """
A figure is saved with its numbers, its settings and the runs that measured them, under an id made of its
content: the address of this page reopens exactly it, and each change has an address of its own (the
browser's Back undoes it). Widths are those of the venues' style files. PDF, SVG, PNG and PGFPlots are
drawn from the same record at exactly this size, in inches, with one embedded serif; the preview is the
same drawing. The bundle adds the data, the tables, the BibTeX of the methods that are shown, and a script
that redraws the figure byte for byte from the data alone. **To Paper** under any figure of the other
pages brings it here.
"""


def _current(opened: OpenStore) -> PaperFigure | None:
    """Return the figure that the address asks for, else the last one, else a first one of stored results."""
    asked = asked_id()
    try:
        if asked:
            figure = find(opened.home, asked)
            show(asked)
            return figure
    except UserError as error:
        told = str(error).replace(f"'{asked}'", quoted(asked))
        st.warning(f"{told} Choose one of the list.", icon=":material/link_off:")
        return None
    listed = [each.id for each in saved_figures(opened.home)]
    last = opened_id() if opened_id() in listed else next(iter(listed), "")
    if last:
        show(last)
        return find(opened.home, last)
    if evaluations(opened).empty:
        return None
    return of_specs(opened.store, _first(opened, str(opened.home.root), opened.store.version))


def _draw_first(_opened: OpenStore, root: str, version: int) -> FigureSpec:
    return RECIPES["trade_off"]().draw(Stored(_opened.store, _opened.home))


_first = st.cache_resource(_draw_first, show_spinner=False, max_entries=4)


def _edit(opened: OpenStore, figure: PaperFigure) -> None:
    """Show a figure with its controls; a change saves the figure that they say and draws the page again."""
    seed(figure)
    settings = first_controls(figure)
    left, right = st.columns([3, 1], gap="small")
    with right:
        settings |= more_controls(figure)
    with left:
        drawable = preview(figure)
        if figure.notes:
            st.caption(figure.notes)
        if drawable:
            downloads(figure)
    st.header("Title and panels")
    title = title_field(figure)
    panels = panels_section(figure)
    try:
        changed = _changed(figure, title, settings, panels)
        if changed.id != figure.id:
            replace(opened.home, figure, changed)
            if [id(panel.spec) for panel in panels] == [id(panel.spec) for panel in figure.panels]:
                seeded(changed)  # the same panels in the same places
            st.rerun()
    except UserError as error:
        left.error(str(error), icon=":material/error:")


def _changed(
    figure: PaperFigure, title: str, settings: dict[str, Any], panels: tuple[Panel, ...]
) -> PaperFigure:
    values = figure.settings.model_dump() | settings
    return figure.changed(title=title, settings=PaperSettings.parse(values, "figure"), panels=panels)


def _compose(opened: OpenStore, figure: PaperFigure | None) -> None:
    made = compose_panel(opened, to_open=figure is not None)
    if made is None:
        return
    spec, add = made
    try:
        if add and figure is not None:
            replace(opened.home, figure, with_spec(opened.store, figure, spec))
        else:
            show(open_figure(opened.home, of_specs(opened.store, spec)))
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.rerun()


def page() -> None:
    """Draw the page."""
    st.title("Paper")
    st.markdown("A figure at your venue's exact width, as files that go straight into a submission.")
    opened = open_store()
    figure = _current(opened)
    picker(opened.home, figure)
    if figure is not None:
        _edit(opened, figure)
    elif evaluations(opened).empty:
        say_empty()
    with st.expander(
        "Compose a panel from stored results", icon=":material/add_chart:", expanded=figure is None
    ):
        _compose(opened, figure)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)


draw(page)
