"""Home: what is loaded, what it says, what ran last, and the way to a first sweep."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.figures import curves
from backend.figures.findings import Finding, findings
from backend.figures.findings_speed import measured_speed
from backend.models import CATALOG, DEFAULT_MODEL
from pages._shared.evaluation import Chosen, first_evaluation, model_note, say_empty
from pages._shared.figures import show_figure
from pages._shared.navigation import draw
from pages._shared.run_progress import worker_sentence
from pages._shared.store import OpenStore, evaluations, latencies, open_store, runs, windows
from pages._shared.text import ago

_FIRST_SWEEP = {"name": "first-sweep", "methods": ["DIP", "Gate pruning"], "tokens": "2048", "window": "512"}
_HOW = """
The findings are computed from the stored results of the evaluation with the most points, each time this
page is drawn: the sentences are made from the numbers. Differences are paired: the same windows of the
same text, so that what varies between texts drops out. ± is one standard error over windows. *Measured*
is a stored point; *interpolated* lies between two of them (monotone cubic, window by window). An oracle
is an upper bound that no kernel can reach. A speed-up is of decoding that ran, beside dense in the same
run; its ± is one standard error over rounds. The Trade-offs page shows the same numbers with every
control.
"""


def _loaded(opened: OpenStore, chosen: Chosen) -> None:
    table, entry = evaluations(opened), CATALOG[DEFAULT_MODEL]
    stored_runs = runs(opened)
    with st.container(horizontal=True):
        st.metric(
            "Points",
            f"{int(table['cells'].sum()):,}",
            border=True,
            help="A model, a method, its settings and a text",
        )
        st.metric("Methods", len({curve.policy for curve in curves(chosen.points)}), border=True)
        st.metric("Models", table["model_sha256"].nunique(), border=True)
        st.metric("Runs", f"{len(stored_runs):,}", border=True)
    st.markdown(
        f"**{entry.title}** ({entry.licence}) is the default model. :gray[{model_note(DEFAULT_MODEL)}] "
        f"{worker_sentence(opened.home)}"
    )


def _show_finding(finding: Finding, place: int) -> None:
    with st.container(border=True, height="stretch"):
        st.markdown(f"**{finding.title}**")
        st.markdown(finding.sentence)
        show_figure(finding.spec, f"finding_{place}", height=330, paper=(3.25, 2.6))


def _compute(_opened: OpenStore, _chosen: Chosen, root: str, version: int) -> list[Finding]:
    points = _chosen.points
    found = findings(points, windows(_opened, tuple(points["cell_id"])))
    speed = measured_speed(points, latencies(_opened), 0.5)
    return found if speed is None else [*found, speed]


_findings = st.cache_resource(_compute, show_spinner=False, max_entries=8)


def _last_runs(table: pd.DataFrame) -> None:
    st.header("Last runs")
    last = table.head(5)
    shown = pd.DataFrame(
        {
            "Run": last["run_id"],
            "Status": last["status"],
            "Cells": [
                f"{done} of {planned or done}" if planned or done else "–"
                for done, planned in zip(last["done"], last["planned"], strict=True)
            ],
            "Asked for": [ago(moment) for moment in last["created_at"]],
        }
    )
    st.dataframe(shown, hide_index=True, alt="The last runs", key="last_runs")
    st.page_link("pages/runs.py", label="All runs", icon=":material/play_circle:")


def page() -> None:
    """Draw the page."""
    st.title("Sparsity Lens")
    st.markdown("Explore what a language model loses when it reads fewer of its weights for each token.")
    opened = open_store()
    chosen = first_evaluation(opened)
    with st.container(horizontal=True):
        if st.button("Run a first sweep", type="primary", icon=":material/play_circle:"):
            st.switch_page("pages/runs.py", query_params=_FIRST_SWEEP)
        if chosen is not None and st.button("Open the trade-offs", icon=":material/monitoring:"):
            st.switch_page("pages/trade_offs.py")
    if chosen is None:
        say_empty()
        return
    found: list[Finding] = _findings(opened, chosen, str(opened.home.root), opened.store.version)
    st.header("What the results say")
    st.caption(f"Computed from {len(chosen.points)} stored points: {chosen.label}.")
    if not found:
        st.info("There are too few points yet for a finding: DIP and the dense model at least.")
    columns = 2 if len(found) == 4 else 3
    for first in range(0, len(found), columns):
        row = found[first : first + columns]
        for place, column in enumerate(st.columns(len(row)), first):
            with column:
                _show_finding(found[place], place)
    st.header("What is loaded")
    _loaded(opened, chosen)
    _last_runs(runs(opened))
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)


draw(page)
