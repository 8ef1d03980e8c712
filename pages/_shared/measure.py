"""Measure this point now: a short run through the worker, paired with a dense run of its own."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.errors import UserError
from backend.evaluation.statistics import Estimate
from backend.experiments import client
from backend.experiments.sweep import Sweep, point_beside_dense
from backend.figures import QUALITY, dense_point, point_label
from backend.results import queries
from backend.sparsity import METHODS, Policy
from pages._shared.evaluation import Chosen
from pages._shared.policy_control import BY_DENSITY, BY_SETTINGS, policy_methods, policy_settings
from pages._shared.run_progress import UNFINISHED, run_now, show_progress
from pages._shared.store import OpenStore
from pages._shared.text import as_rise, with_error

SHIPPED = "prose"
"""The text that is there on every machine."""
TOKENS = (512, 1_024, 2_048, 4_096, 8_192, 16_384)
WINDOWS = (128, 256, 512, 1_024)
POLL_SECONDS = 0.5
_RUN = "measured_run"


def measure_section(opened: OpenStore, chosen: Chosen) -> None:
    """Show the form and, once a point was asked for, its run."""
    st.fragment(_form)(opened, chosen)
    run_id = st.session_state.get(_RUN)
    if run_id is None:
        return
    run = queries.run(opened.store, run_id)
    unfinished = run is None or run.status in UNFINISHED
    st.fragment(_result, run_every=POLL_SECONDS if unfinished else None)(opened, chosen, run_id, unfinished)


def _form(opened: OpenStore, chosen: Chosen) -> None:
    names = policy_methods()
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = st.selectbox(
            "Method", names, format_func=lambda name: METHODS[name].title, key="measure_method", width=220
        )
        by = st.radio("Set it by", [BY_DENSITY, BY_SETTINGS], key="measure_by", horizontal=True)
        tokens = st.selectbox(
            "Tokens", TOKENS, key="measure_tokens", width=110, format_func=lambda number: f"{number:,}"
        )
        window = st.selectbox(
            "Window",
            WINDOWS,
            index=1,
            key="measure_window",
            width=110,
            format_func=lambda number: f"{number:,}",
        )
        text = st.selectbox(
            "Text", list(dict.fromkeys([str(chosen.keys["text"]), SHIPPED])), key="measure_text", width=150,
            help=f"{SHIPPED} ships with Python; others are read from the data root or the hub.",
        )  # fmt: skip
    try:
        policy = policy_settings(method, by, "measure")
        sweep = _sweep(chosen, policy, text, tokens, window)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    if st.button("Measure this point now", type="primary", icon=":material/bolt:", key="measure"):
        try:
            st.session_state[_RUN] = client.submit(opened.home, sweep, "point")
        except UserError as error:
            st.error(str(error), icon=":material/error:")
            return
        st.rerun()


def _sweep(chosen: Chosen, policy: Policy, text: str, tokens: int, window: int) -> Sweep:
    asked = {"text": text, "tokens": tokens, "window": window, "dtype": chosen.keys["dtype"]}
    return point_beside_dense(str(chosen.keys["model"]), policy.name, policy.canonical(), asked)


def _result(opened: OpenStore, chosen: Chosen, run_id: str, unfinished: bool) -> None:
    """Show the run as it is now; when it has ended, draw the whole page anew once."""
    run = run_now(opened, run_id, unfinished)
    if run is None:
        return
    with st.container(border=True):
        if run.status != "done":
            show_progress(opened, run)
        points = queries.points(opened.store, run_id=run_id)
        sparse = points[points["policy"] != "dense"]
        if not sparse.empty:
            _card(sparse.iloc[0], dense_point(points), chosen)
        st.page_link(
            "pages/runs.py", label="This run", icon=":material/open_in_new:", query_params={"run": run_id}
        )


def _card(row: pd.Series, dense: pd.Series | None, chosen: Chosen) -> None:
    stderr = None if pd.isna(row["delta_nll_stderr"]) else float(row["delta_nll_stderr"])
    delta = Estimate(float(row["delta_nll"]), stderr, int(row["scored_tokens"]))
    st.markdown(f"**{point_label(row['policy'], row['settings'])}** · {row['how']} in {row['seconds']:.1f} s")
    with st.container(horizontal=True):
        st.metric("MLP density", f"{row['mlp_density']:.3f}", width="content")
        dense_shown = "" if dense is None else f" (dense {dense['perplexity']:.2f})"
        st.metric("Perplexity" + dense_shown, f"{row['perplexity']:.2f}", width="content")
        st.metric("Rise over dense, paired", as_rise(delta), width="content")
    others = [
        f"ΔNLL {with_error(delta, sign=True)} nats/token",
        f"KL {QUALITY['kl'].show(row['kl'], row['kl_stderr'])} nats/token",
        f"agreement {QUALITY['agreement'].show(row['agreement'], row['agreement_stderr'])}",
    ]
    st.markdown(" · ".join(others))
    tokens, window = int(row["tokens"]), int(row["window"])
    curves = chosen.keys
    if (row["text"], tokens, window) != (curves["text"], curves["tokens"], curves["window"]):
        st.caption(
            f"Measured on {tokens:,} tokens of {row['text']} in {tokens // window} windows of {window:,}; "
            f"the curves above on {curves['tokens']:,} of {curves['text']} in {chosen.windows} of "
            f"{curves['window']:,}. "
            "The perplexities cannot be compared; the paired difference to dense can, within its error."
        )
