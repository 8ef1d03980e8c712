"""The figure that is open in Paper: its id stands in the address, its content among the saved figures.

A figure is named by its content, so each change makes another one, which is saved in place of the one that
was changed; those that were asked for (To Paper, an import) stay. What a change replaced is kept in the
session, so that the browser's Back undoes it.
"""

from __future__ import annotations

import streamlit as st

from backend.errors import UserError
from backend.figures import FigureSpec
from backend.figures.paper import PaperFigure
from backend.figures.paper.origin import with_runs
from backend.figures.paper.saved import load, remove, save
from backend.home import Home
from backend.results import Store

ADDRESS_KEY = "figure"
PAGE = "pages/paper.py"
_OPEN = "paper_open"
"""Key of the id of the figure that this session had open last."""
_CHANGED = "paper_changed"
"""Key of the figures that changes made in this session, by id; the last ones."""
_MOST_CHANGES = 40


def asked_id() -> str:
    """Return the id that the address asks for, "" for none."""
    return str(st.query_params.get(ADDRESS_KEY, ""))


def opened_id() -> str:
    """Return the id of the figure that this session has open, "" for none."""
    return str(st.session_state.get(_OPEN, ""))


def find(home: Home, id: str) -> PaperFigure:
    """Return a figure that is saved, or that a change in this session made.

    Raises:
        UserError: There is none.
    """
    changed: dict[str, PaperFigure] = st.session_state.get(_CHANGED, {})
    try:
        return load(home, id)
    except UserError:
        if id not in changed:
            raise
        return changed[id]


def open_figure(home: Home, figure: PaperFigure) -> str:
    """Save a figure that was asked for, make it the open one, and return its id.

    Raises:
        UserError: It cannot be saved.
    """
    id = save(home, figure)
    _changes().pop(id, None)  # from now on it stays
    st.session_state[_OPEN] = id
    return id


def show(id: str) -> None:
    """Make a figure the open one, in the session and in the address."""
    st.session_state[_OPEN] = id
    if asked_id() != id:
        st.query_params[ADDRESS_KEY] = id


def replace(home: Home, old: PaperFigure, new: PaperFigure) -> None:
    """Save what a change made of a figure in its place, and open it.

    Raises:
        UserError: It cannot be saved.
    """
    changes = _changes()
    known = new.id not in changes and (home.figures / f"{new.id}.json").is_file()
    save(home, new)
    if not known:
        changes[new.id] = new
    while len(changes) > _MOST_CHANGES:
        changes.pop(next(iter(changes)))
    if old.id in changes and old.id != new.id:
        remove(home, old.id)
    show(new.id)


def close(home: Home, id: str) -> None:
    """Delete a figure; none is open afterwards."""
    remove(home, id)
    _changes().pop(id, None)
    st.session_state.pop(_OPEN, None)
    st.query_params.pop(ADDRESS_KEY, None)


def of_specs(store: Store, *specs: FigureSpec) -> PaperFigure:
    """Return a new figure of specs as pages show them, with a record of their runs."""
    return with_runs(PaperFigure.of(*specs, title=specs[0].title[:200] or "Figure"), store)


def with_spec(store: Store, figure: PaperFigure, spec: FigureSpec) -> PaperFigure:
    """Return a figure with one more panel.

    Raises:
        UserError: It has as many panels as there may be.
    """
    return with_runs(figure.with_panels(spec), store)


def _changes() -> dict[str, PaperFigure]:
    changes: dict[str, PaperFigure] = st.session_state.setdefault(_CHANGED, {})
    return changes
