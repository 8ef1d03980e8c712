"""How a run is getting on, as pages show it."""

from __future__ import annotations

from typing import Any, Literal

import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.experiments.evaluations.kinds import DEFAULT_KIND
from backend.experiments.runs import GENERATIONS
from backend.home import Home
from backend.results import queries
from backend.results.latencies import KIND
from backend.results.queries import StoredRun
from pages._shared.store import OpenStore
from pages._shared.text import duration

Colour = Literal["blue", "green", "orange", "red", "gray"]
STATUS: dict[str, tuple[str, Colour]] = {
    "queued": (":material/hourglass:", "gray"),
    "running": (":material/autorenew:", "blue"),
    "paused": (":material/pause:", "orange"),
    "done": (":material/check:", "green"),
    "cancelled": (":material/close:", "gray"),
    "failed": (":material/error:", "red"),
    "interrupted": (":material/power_off:", "orange"),
}
STEPS = {DEFAULT_KIND: "windows", KIND: "rounds"}
"""What a step of a run is, by its evaluation's kind."""
UNFINISHED = ("queued", "running", "paused")
WORKER = {
    "absent": "The worker is not running; it starts with the next run.",
    "starting": "The worker is starting.",
    "idle": "The worker is ready, with the model warm.",
    "running": "The worker is running",
}


def status_badge(status: str) -> None:
    """Show a run's status as a badge with an icon."""
    icon, colour = STATUS.get(status, (":material/help:", "gray"))
    st.badge(status, icon=icon, color=colour)


def show_progress(opened: OpenStore, run: StoredRun) -> None:
    """Show the progress bar of a run that has not ended, or how it ended."""
    if run.status not in UNFINISHED:
        if run.message:
            st.caption(run.message)
        return
    said: dict[str, Any] = queries.progress(opened.store, run.run_id) or {}
    done, total = int(said.get("done") or 0), int(said.get("total") or 0)
    if run.status == "queued":
        st.progress(0.0, text="Waiting for the worker.")
    elif not total:
        st.progress(0.0, text="Loading the model and the text.")
    else:
        left = "paused" if run.status == "paused" else f"about {duration(said.get('seconds_left'))} left"
        steps = STEPS.get(str((run.spec.get("evaluation") or {}).get("kind", DEFAULT_KIND)), "steps")
        steps = "prompts" if run.kind in GENERATIONS else steps
        st.progress(min(1.0, done / total), text=f"{done:,} of {total:,} {steps} · {left}")


def run_now(opened: OpenStore, run_id: str, unfinished: bool) -> StoredRun | None:
    """Return a run as it is now, None after saying why there is none yet.

    Args:
        opened: The store, brought up to date first.
        run_id: The run that the page asked for.
        unfinished: The page was drawn while it ran: once it has ended, the whole page is drawn anew.
    """
    try:
        opened.refresh(at_once=unfinished)  # one that has ended needs no look at each click
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return None
    run = queries.run(opened.store, run_id)
    if run is None:
        st.progress(0.0, text="Waiting for the worker.")
    elif unfinished and run.status not in UNFINISHED:
        st.rerun()
    return run


def worker_sentence(home: Home) -> str:
    """Return what the worker is doing, in a sentence."""
    status = client.worker_status(home)
    return f"{WORKER['running']} {status.run}." if status.state == "running" else WORKER[status.state]
