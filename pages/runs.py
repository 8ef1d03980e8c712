"""Runs: compose a sweep, start it, watch it, stop it, take its results along."""

from __future__ import annotations

import json

import pandas as pd
import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.experiments.runs import GENERATIONS
from backend.results import queries
from backend.results.export import to_bytes
from backend.results.queries import StoredRun
from pages._shared.address import Address
from pages._shared.compose import compose, prefilled, to_text, to_yaml
from pages._shared.navigation import draw
from pages._shared.run_progress import UNFINISHED, show_progress, status_badge, worker_sentence
from pages._shared.store import OpenStore, open_store, runs
from pages._shared.text import ago, duration

POLL_SECONDS = 1.0
_MEASURED = (
    "mlp_density", "perplexity", "delta_nll", "delta_nll_stderr", "kl", "agreement", "tokens_per_s",
    "ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90", "dense_ms_per_token_median", "speedup",
    "mlp_ms", "attention_ms", "head_ms", "overhead_ms", "mlp_ratio", "bytes_per_token", "bandwidth_share",
)  # fmt: skip
_NOISE = ("progress", "generation_tokens", "generation_scores")
"""Events that the log leaves out: one comes every few moments."""
_HOW = """
A sweep is a list of **cells**: one model, one method with its settings, one evaluation. A cell's id is
a hash of everything that decides its result, so a cell that was measured before is *found*, not run
again. One worker process for each home folder keeps the model warm and runs one sweep at a time; a
point asked for on the Trade-offs page passes a running sweep at the next window (or round, of latencies).
Cancel and pause take effect there, too, and what was finished stays. The worker appends to
`runs/<run>/events.jsonl`; the database is made from these files and can always be made again. A run
whose process is gone counts as interrupted and can be resumed. Times left are estimated from the
windows so far; those of a sweep that has not started, from the median time a token of all stored cells.
"""


def _table(opened: OpenStore) -> None:
    """Show all runs; a click on a row chooses its run below."""
    table = runs(opened)
    cells = table["done"]
    shown = pd.DataFrame(
        {
            "Run": table["run_id"],
            "Kind": table["kind"],
            "Status": table["status"],
            "Cells done": cells,
            "Planned": table["planned"].where(table["planned"] > 0, cells),
            "Failed": table["failed"],
            "From": table["source"],
            "Asked for": [ago(moment) for moment in table["created_at"]],
        }
    )
    ids = list(table["run_id"])

    def choose() -> None:
        rows = st.session_state["runs_table"]["selection"]["rows"]
        if rows:
            st.session_state["run"] = ids[rows[0]]

    st.dataframe(
        shown, hide_index=True, key="runs_table", alt="All runs",
        on_select=choose, selection_mode="single-row", height="auto" if len(shown) < 8 else 320,
    )  # fmt: skip


def _controls(opened: OpenStore, run: StoredRun) -> None:
    """Show what can be done with a run as it is."""
    actions = []
    if run.source == "local":
        if run.status in UNFINISHED:
            actions.append(("Cancel", ":material/close:", client.cancel))
        if run.status == "running":
            actions.append(("Pause", ":material/pause:", client.pause))
        if run.status in ("paused", "cancelled", "failed", "interrupted"):
            actions.append(("Resume", ":material/play_arrow:", client.resume))
    for label, icon, act in actions:
        if st.button(label, icon=icon, key=f"{label.lower()}_{run.run_id}"):
            try:
                act(opened.home, run.run_id)
            except UserError as error:
                st.error(str(error), icon=":material/error:")
                return
            st.toast(f"{label}: takes effect at the next window.")
            opened.refresh(at_once=True)
            st.rerun(scope="app")


def _downloads(opened: OpenStore, run: StoredRun) -> None:
    def measured(format: str) -> bytes:
        return to_bytes(queries.measurements(opened.store, {"run": run.run_id}), format)

    for label, ending, mime in (
        ("CSV", "csv", "text/csv"),
        ("Parquet", "parquet", "application/vnd.apache.parquet"),
    ):
        st.download_button(
            label, lambda ending=ending: measured(ending), f"{run.run_id}.{ending}", mime, on_click="ignore",
            icon=":material/download:", key=f"{ending}_{run.run_id}", help="Every measurement of this run",
        )  # fmt: skip


def _log(opened: OpenStore, run: StoredRun) -> None:
    events = queries.events(opened.store, run.run_id, last=400)
    events = events[~events["kind"].isin(_NOISE)].tail(100)
    if events.empty:
        st.caption("Nothing is logged yet." if run.source == "local" else "Bundles bring no log along.")
        return
    said = [_line(str(row.kind), json.loads(str(row.payload))) for row in events.itertuples()]
    table = pd.DataFrame({"UTC": events["at"].dt.strftime("%H:%M:%S"), "Event": said}).iloc[::-1]
    st.dataframe(table, hide_index=True, height=260, alt="Log, the last event first", key="log")


def _line(kind: str, payload: dict[str, object]) -> str:
    """Return one event as a line of the log."""
    words = kind.replace("_", " ")
    said = payload.get("message") or payload.get("name") or payload.get("status") or ""
    seconds = payload.get("seconds")
    took = f" in {duration(float(seconds))}" if isinstance(seconds, int | float) else ""
    return f"{words}{f': {said}' if said else ''}{took}"


def _detail(opened: OpenStore, run_id: str, was_unfinished: bool) -> None:
    """Show one run as it is now; drawn again and again while it has not ended."""
    try:
        opened.refresh()
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    run = queries.run(opened.store, run_id)
    if run is None:
        st.warning(f"There is no run {run_id} any more.")
        return
    if was_unfinished and run.status not in UNFINISHED:
        st.rerun(scope="app")
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(run.status)
        st.caption(f"Asked for {ago(run.created_at)}; {run.kind}, {run.source}.")
    show_progress(opened, run)
    with st.container(horizontal=True, vertical_alignment="center"):
        _controls(opened, run)
        _downloads(opened, run)
        if run.kind in GENERATIONS:
            st.page_link(
                "pages/generations.py", label="See the texts", icon=":material/edit_note:",
                query_params={"generation": run.run_id},
            )  # fmt: skip
        else:
            st.page_link("pages/trade_offs.py", label="See the curves", icon=":material/monitoring:")
    log, results, asked, made = st.tabs(["Log", "Results", "Sweep file", "Made with"])
    with log:
        _log(opened, run)
    with results:
        st.dataframe(
            _results(queries.points(opened.store, run_id=run_id)),
            hide_index=True,
            alt="Results of this run",
            key="run_results",
        )
    with asked:
        st.code(_asked(run), language="yaml")
    with made:
        st.json(run.provenance or {"provenance": "The run has not started."})


def _results(points: pd.DataFrame) -> pd.DataFrame:
    """Return what was measured, whatever the kind of evaluation: columns without a value are left out."""
    known = [name for name in _MEASURED if points[name].notna().any()]
    dtype = ["dtype"] if points["dtype"].nunique() > 1 else []
    return points[["policy", "settings", *dtype, *known, "seconds"]]


def _asked(run: StoredRun) -> str:
    from backend.experiments.sweep import Sweep

    if run.kind in GENERATIONS:
        return to_text(run.spec)
    try:
        return to_yaml(Sweep.parse(run.spec, run.run_id))
    except UserError as error:
        return f"# {error}"


def page() -> None:
    """Draw the page."""
    st.title("Runs")
    st.markdown("Compose a sweep, start it, and watch its cells come in.")
    opened = open_store()
    address = Address()
    ids = list(runs(opened)["run_id"])
    with st.expander("New sweep", icon=":material/add:", expanded=not ids or prefilled(), key="new_sweep"):
        compose(opened, address)
    if new := st.session_state.pop("new_run", None):
        st.session_state["run"] = new
    st.header("Queue and history")
    st.caption(worker_sentence(opened.home))
    if not ids:
        st.info("No run yet.", icon=":material/inbox:")
    else:
        _table(opened)
        chosen = address.choice("Run", ids, "run")
        run = queries.run(opened.store, chosen)
        unfinished = run is not None and run.status in UNFINISHED
        st.fragment(_detail, run_every=POLL_SECONDS if unfinished else None)(opened, chosen, unfinished)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)


draw(page)
