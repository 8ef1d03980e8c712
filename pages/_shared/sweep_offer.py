"""Sweeps that fill in what a page could show and is not stored, each with a button that runs it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.experiments.sweep_files import SweepFile
from pages._shared.store import OpenStore

Coverage = tuple[SweepFile, int, int]
"""A sweep file, how many of its cells are stored for a model, and how many it has."""


def offer_sweeps(opened: OpenStore, model: str, coverages: Sequence[Coverage], note: str = "") -> None:
    """Show each sweep that is not wholly stored for a model, with a button that runs it.

    Args:
        opened: The store.
        model: The model's name in sweeps.
        coverages: The page's sweeps.
        note: What its reader has to know beside, as where texts come from.
    """
    lacking = [each for each in coverages if each[1] < each[2]]
    if not lacking:
        return
    st.header("What is not stored yet")
    st.markdown(
        f"Each of these sweeps fills in its part of this page for **{model}**, in the background; what "
        f"is stored already is found, not run. {note}".strip()
    )
    for file, stored, planned in lacking:
        _offer(opened, model, file, stored, planned)
    st.page_link("pages/runs.py", label="All runs", icon=":material/play_circle:")


def _offer(opened: OpenStore, model: str, file: SweepFile, stored: int, planned: int) -> None:
    name = file.sweep.name
    text, button = st.columns([7, 1], vertical_alignment="center")
    text.markdown(f"**{name}**: {stored} of {planned} points stored. {file.says}")
    if not button.button("Run it", key=f"run_{name}", help=f"`{file.command}`", width="stretch"):
        return
    try:
        sweep = file.sweep.model_copy(update={"model": model, "models": ()})
        run = client.submit(opened.home, sweep, "sweep")
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    opened.refresh(at_once=True)
    st.switch_page("pages/runs.py", query_params={"run": run})
