"""Measure its latency now: a point is timed beside the dense model, through the worker."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.experiments.evaluations import make_evaluation
from backend.experiments.sweep import one_policy
from backend.figures import MethodReading, point_label
from backend.figures.metrics import SPEED
from backend.figures.speed import Setup, Timed, setups, with_speed
from backend.results import queries
from backend.results.latencies import KIND
from backend.sparsity import METHODS, Policy, make_policy
from pages._shared.evaluation import Chosen
from pages._shared.run_progress import UNFINISHED, run_now, show_progress
from pages._shared.speed import Timing
from pages._shared.store import OpenStore, latencies

POLL_SECONDS = 0.5
MOST_OFFERED = 300
"""Points without a latency in the list; a sweep is the way for more."""
_RUN = "latency_run"
_ALONE = (
    "Timing runs alone: the worker does one thing at a time, and a running sweep waits meanwhile. Rounds in "
    "which other programs took the processor are repeated and, if that does not help, marked as disturbed."
)


def latency_button(
    opened: OpenStore,
    chosen: Chosen,
    timing: Timing,
    readings: list[MethodReading],
    reference: str,
    at: float,
    cost: str,
) -> None:
    """Offer to time a point that is read out; on the axis of speed also those that are left out.

    Args:
        opened: The store.
        chosen: The evaluation, its points joined with their speeds.
        timing: Which timings are shown; a new one is taken the same way.
        readings: What is read out.
        reference: Label of the curve that is offered first.
        at: The cost they were read at.
        cost: The metric that is the cost.
    """
    offered = _offered(chosen.points, readings, at, cost)
    if not offered:
        return
    labels = list(offered)
    first = next((r.curve.label for r in readings if r.curve.label == reference), "")
    index = next((i for i, label in enumerate(labels) if label.startswith(f"{first} ·")), 0)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = st.selectbox("Point to time", labels, index=index, key=f"time_{labels[index]}", width=330)
        asked = st.button("Measure its latency now", icon=":material/timer:", key="measure_latency")
    st.caption(_ALONE)
    if not asked:
        return
    policy, dtype = offered[label or labels[index]]
    try:
        evaluation = _evaluation(opened, chosen, timing.setup, policy, dtype)
        sweep = one_policy(KIND, str(chosen.keys["model"]), policy.name, policy.canonical(), evaluation)
        st.session_state[_RUN] = client.submit(opened.home, sweep, "point")
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.rerun()


def latency_result(opened: OpenStore) -> None:
    """Show the timing that was asked for, as it is now."""
    run_id = st.session_state.get(_RUN)
    if run_id is None:
        return
    run = queries.run(opened.store, run_id)
    unfinished = run is None or run.status in UNFINISHED
    st.fragment(_result, run_every=POLL_SECONDS if unfinished else None)(opened, run_id, unfinished)


def _offered(
    points: pd.DataFrame, readings: list[MethodReading], at: float, cost: str
) -> dict[str, tuple[Policy, str]]:
    """Return the points that can be timed, by their names: policy and precision."""
    cells = [r.cell for r in readings if r.curve.realisable and r.cell]
    every = [row for _, row in points.set_index("cell_id").loc[cells].iterrows()]
    found = [(_policy(row), str(row["dtype"])) for row in every]
    if cost == "mlp_density":
        between = [r.curve for r in readings if r.state == "interpolated" and r.curve.realisable]
        found += [
            (METHODS[c.policy].at_density(at), str(points["dtype"].iloc[0])) for c in between if not c.variant
        ]
    if cost == SPEED:
        left = points[points[SPEED].isna() & (points["how"] != "oracle")]
        found += [(_policy(row), str(row["dtype"])) for _, row in left.head(MOST_OFFERED).iterrows()]
    several = len({dtype for _, dtype in found}) > 1
    return {
        point_label(policy.name, json.dumps(policy.canonical())) + (f" · {dtype}" if several else ""):
        (policy, dtype) for policy, dtype in found
    }  # fmt: skip


def _policy(row: Mapping[str, Any] | pd.Series) -> Policy:
    return make_policy(str(row["policy"]), json.loads(row["settings"]))


def _evaluation(
    opened: OpenStore, chosen: Chosen, setup: Setup | None, policy: Policy, dtype: str
) -> dict[str, Any]:
    """Return the settings of a timing like those shown; a point that was timed before is timed again."""
    asked: dict[str, Any] = {"kind": KIND, "text": chosen.keys["text"], "dtype": dtype}
    if setup is not None:
        asked |= {name: getattr(setup, name) for name in ("prompt", "tokens", "execution", "prefill")}
    table = latencies(opened)
    same = (table["policy"] == policy.name) & (table["dtype"] == dtype)
    same &= table["model_sha256"] == chosen.keys["model_sha256"]
    before = [json.loads(text) == policy.canonical() for text in table.loc[same, "settings"]]
    asked["repeat"] = sum(before)
    make_evaluation(asked).check(policy)
    return asked


def _result(opened: OpenStore, run_id: str, unfinished: bool) -> None:
    run = run_now(opened, run_id, unfinished)
    if run is None:
        return
    with st.container(border=True):
        if run.status != "done":
            show_progress(opened, run)
        _card(opened, run_id)
        st.page_link(
            "pages/runs.py", label="This run", icon=":material/open_in_new:", query_params={"run": run_id}
        )


def _card(opened: OpenStore, run_id: str) -> None:
    points = queries.points(opened.store, run_id=run_id)
    table = latencies(opened)
    timed = table[table["cell_id"].isin(points["cell_id"])]
    if timed.empty:
        return
    row = with_speed(points, timed, setups(timed)[0]).iloc[0]
    said = Timed.of(row)
    if said is None:
        return
    st.markdown(f"**{point_label(row['policy'], row['settings'])}** · {row['dtype']} · {said.machine}")
    with st.container(horizontal=True):
        st.metric("Tokens/s", said.speed, width="content")
        st.metric("p10–p90", said.range, width="content")
        st.metric("Over dense, same run", said.speedup, width="content")
    st.caption(f"Rounds: {said.rounds}. Decode loop: {said.loop}.")
