"""The app's one store, kept fresh, and its cached queries."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pandas as pd
import streamlit as st

from backend.errors import UserError
from backend.figures.interpolation import WINDOW_METRICS
from backend.home import Home
from backend.results import Store, StoreBusy, queries
from backend.results.latencies import latencies as query_latencies

REFRESH_SECONDS = 1.0
"""How long what was read of the run folders counts as fresh; pages rerun far more often."""

EVALUATION_KEYS = (
    "kind", "model", "model_sha256", "text", "text_sha256", "tokens", "window", "stride", "dtype",
)  # fmt: skip


@dataclass
class OpenStore:
    """The store with the time it was last brought up to date."""

    home: Home
    store: Store
    read_at: float = 0.0
    lock: Lock = field(default_factory=Lock)

    def refresh(self, at_once: bool = False) -> None:
        """Take what is new in the run folders, unless that was done just now."""
        with self.lock:
            if at_once or time.monotonic() - self.read_at > REFRESH_SECONDS:
                self.store.ingest()
                self.read_at = time.monotonic()


def open_store() -> OpenStore:
    """Return the store, brought up to date; if it cannot be had, the page says why and stops."""
    try:
        opened: OpenStore = _opened_store(str(Home.resolve().root))
        opened.refresh()
    except StoreBusy as busy:
        st.error(f"{busy}", icon=":material/lock:")
        st.caption(
            "Two apps cannot share one home folder. This page works again when the other one has ended."
        )
        st.button("Try again", icon=":material/refresh:")
        st.stop()
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()
    for notice in opened.store.notices[-3:]:
        st.info(notice, icon=":material/info:")
    return opened


def _open(root: str) -> OpenStore:
    home = Home.resolve(root)
    return OpenStore(home, Store.open(home))


def evaluations(opened: OpenStore) -> pd.DataFrame:
    """Return what was evaluated, those with most cells first."""
    found: pd.DataFrame = _evaluations(opened, str(opened.home.root), opened.store.version)
    return found


def points(opened: OpenStore, evaluation: dict[str, object]) -> pd.DataFrame:
    """Return the points of one evaluation (the columns of ``EVALUATION_KEYS`` to their values)."""
    found: pd.DataFrame = _points(
        opened, str(opened.home.root), opened.store.version, tuple(sorted(evaluation.items()))
    )
    return found


def windows(opened: OpenStore, cells: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """Return the window values of these cells, by metric."""
    found: dict[str, pd.DataFrame] = _windows(opened, str(opened.home.root), opened.store.version, cells)
    return found


def latencies(opened: OpenStore) -> pd.DataFrame:
    """Return every measured latency, as :func:`backend.results.latencies.latencies` does."""
    found: pd.DataFrame = _latencies(opened, str(opened.home.root), opened.store.version)
    return found


def runs(opened: OpenStore) -> pd.DataFrame:
    """Return all runs, the newest first, with ``done``: the cells they measured or found."""
    found: pd.DataFrame = _runs(opened, str(opened.home.root), opened.store.version)
    return found


def _query_evaluations(_opened: OpenStore, root: str, version: int) -> pd.DataFrame:
    return queries.evaluations(_opened.store)


def _query_points(
    _opened: OpenStore, root: str, version: int, chosen: tuple[tuple[str, Any], ...]
) -> pd.DataFrame:
    return queries.points(_opened.store, **dict(chosen))


def _query_windows(
    _opened: OpenStore, root: str, version: int, cells: tuple[str, ...]
) -> dict[str, pd.DataFrame]:
    return {metric: queries.window_values(_opened.store, cells, metric) for metric in WINDOW_METRICS}


def _query_latencies(_opened: OpenStore, root: str, version: int) -> pd.DataFrame:
    return query_latencies(_opened.store)


def _query_runs(_opened: OpenStore, root: str, version: int) -> pd.DataFrame:
    return queries.runs(_opened.store)


# Keyed by the store's version, a number: hashing the frames would cost more than the queries. cache_resource
# hands out the same frames without copying them; no page changes one.
_opened_store = st.cache_resource(
    _open, show_spinner="Opening the results …", max_entries=4, on_release=lambda opened: opened.store.close()
)
_evaluations = st.cache_resource(_query_evaluations, show_spinner=False, max_entries=8)
_points = st.cache_resource(_query_points, show_spinner=False, max_entries=16)
_windows = st.cache_resource(_query_windows, show_spinner=False, max_entries=16)
_latencies = st.cache_resource(_query_latencies, show_spinner=False, max_entries=4)
_runs = st.cache_resource(_query_runs, show_spinner=False, max_entries=4)
