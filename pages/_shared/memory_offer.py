"""The offer to run what is asked for and not stored: through the worker, with its progress."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.experiments.sweep import one_policy, point_beside_dense
from backend.figures.memory_scene import Asked
from backend.figures.memory_sources import CACHE_AWARE, PLAIN, Source, Wanted
from backend.figures.memory_subjects import cache_share_at
from backend.models import DEFAULT_MODEL
from backend.results import queries
from pages._shared.run_progress import UNFINISHED, show_progress
from pages._shared.store import OpenStore

POLL_SECONDS = 1.0
_RUNS = "memory_runs"
_FIRST = {"text": "prose", "tokens": 2_048, "window": 512}
"""What is evaluated where nothing is stored yet: the text that is always there."""


def offer(opened: OpenStore, asked: Asked, source: Source | None, wanted: Wanted | None) -> None:
    """Show a button that runs exactly what the controls ask for."""
    evaluation, model = _evaluation(asked, source), source.model if source else DEFAULT_MODEL
    if asked.policy == CACHE_AWARE:
        share = cache_share_at(asked.dram_gb, asked.shape, asked.settings)
        exact = wanted or Wanted(asked.density, asked.gamma, share, share, asked.eviction)
        settings = exact.settings()
        caches = f"caches {settings['cache_share']:.1%}"
        if "neuron_cache" in settings:
            caches += f" and {settings['neuron_cache']:.1%}"
        label = f"Measure DIP-CA at density {asked.density:g}, γ {asked.gamma:g}, {caches}"
    else:
        settings = {"density": asked.density}
        label = f"Record and measure DIP at density {asked.density:g}"
    help_ = f"{evaluation['tokens']:,} tokens of {evaluation['text']} on {model}, in the background."
    if st.button(label, icon=":material/bolt:", key="run_missing", help=help_):
        try:
            _submit(opened, model, asked.policy, settings, evaluation)
        except UserError as error:
            st.error(str(error), icon=":material/error:")
            return
        st.rerun()


def asked_runs(opened: OpenStore) -> None:
    """Show the runs that were asked for here, until the page is left."""
    ids: list[str] = st.session_state.get(_RUNS, [])
    if not ids:
        return
    runs = [queries.run(opened.store, run) for run in ids]
    unfinished = any(run is None or run.status in UNFINISHED for run in runs)
    st.fragment(_progress, run_every=POLL_SECONDS if unfinished else None)(opened, ids, unfinished)


def _progress(opened: OpenStore, ids: list[str], unfinished: bool) -> None:
    """Show the runs as they are now; when the last has ended, draw the whole page anew once."""
    try:
        opened.refresh(at_once=True)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    runs = [queries.run(opened.store, run) for run in ids]
    if unfinished and all(run is not None and run.status not in UNFINISHED for run in runs):
        st.rerun()
    with st.container(border=True):
        for name, run in zip(ids, runs, strict=True):
            if run is None:
                st.progress(0.0, text="Waiting for the worker.")
                continue
            show_progress(opened, run)
            st.page_link(
                "pages/runs.py",
                label=f"{run.name}: {run.status}",
                icon=":material/open_in_new:",
                query_params={"run": name},
            )


def _evaluation(asked: Asked, source: Source | None) -> dict[str, Any]:
    """Return the evaluation of what is stored nearby, so that the new point can be compared with it."""
    if source is None:
        return dict(_FIRST)
    info = source.recording(asked.density)
    if info is not None:
        said = info.description["evaluation"]
        tokens, dtype = int(said["tokens"]), str(said["dtype"])
    else:
        tokens, dtype = min(point.quality.tokens for point in source.points), source.dtype
    return {"text": source.text, "tokens": tokens, "window": source.window, "dtype": dtype}


def _submit(
    opened: OpenStore, model: str, policy: str, settings: dict[str, Any], evaluation: dict[str, Any]
) -> None:
    """Queue the point, and for plain DIP its recording."""
    point = point_beside_dense(model, policy, settings, evaluation)
    runs = [client.submit(opened.home, point, "point")]
    if policy == PLAIN:
        recording = one_policy("recording", model, policy, settings, evaluation)
        runs.append(client.submit(opened.home, recording, "recording"))
    st.session_state[_RUNS] = runs
    opened.refresh(at_once=True)
