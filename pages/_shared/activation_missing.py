"""What the page "Sparse activation" could show and is not stored: the sweep that makes it, and a button."""

from __future__ import annotations

import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.experiments.sweep_files import SweepFile
from pages._shared.activation_data import Model, coverages
from pages._shared.store import OpenStore


def missing(opened: OpenStore, model: Model) -> None:
    """Show each sweep of this page that is not wholly stored for a model."""
    lacking = [each for each in coverages(opened, model) if each[1] < each[2]]
    if not lacking:
        return
    st.header("What is not stored yet")
    st.markdown(
        f"Each of these sweeps fills in its part of this page for **{model.name}**, in the background; what "
        "is stored already is found, not run. Questions and WikiText-2 are read from the data root."
    )
    for file, stored, planned in lacking:
        _offer(opened, model, file, stored, planned)
    st.page_link("pages/runs.py", label="All runs", icon=":material/play_circle:")


def _offer(opened: OpenStore, model: Model, file: SweepFile, stored: int, planned: int) -> None:
    name = file.sweep.name
    text, button = st.columns([7, 1], vertical_alignment="center")
    text.markdown(f"**{name}**: {stored} of {planned} points stored. {file.says}")
    if not button.button("Run it", key=f"run_{name}", help=f"`{file.command}`", width="stretch"):
        return
    try:
        sweep = file.sweep.model_copy(update={"model": model.name, "models": ()})
        run = client.submit(opened.home, sweep, "sweep")
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    opened.refresh(at_once=True)
    st.switch_page("pages/runs.py", query_params={"run": run})
