"""Run folders as the worker writes them, and the whole content of a store to compare."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from backend.home import Home
from backend.results import Store

TABLES = ("runs", "cells", "results", "measurements", "windows", "events", "ingest_state", "imports")


def this_process() -> dict[str, Any]:
    return {"pid": os.getpid(), "started": psutil.Process().create_time()}


def at(second: int) -> str:
    time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    return time.isoformat(timespec="milliseconds")


def event(kind: str, second: int = 0, **payload: Any) -> dict[str, Any]:
    return {"at": at(second), "kind": kind, **payload}


def started(second: int = 0, process: dict[str, Any] | None = None) -> dict[str, Any]:
    provenance = {"git": "abc", "process": process or {"pid": 2**22 + 1, "started": 0.0}}
    return event("run_started", second, provenance=provenance)


def finished(
    cell: str,
    second: int = 0,
    *,
    keep: float = 0.5,
    perplexity: float = 20.0,
    policy: str = "dip",
    windows: list[float] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    values = [0.1, 0.2, 0.3] if windows is None else windows
    how = "oracle" if policy == "glu" else "measured"
    measurements = [
        {"metric": "perplexity", "value": perplexity, "stderr": 0.4, "n": 3069, "unit": "", "how": how},
        {"metric": "delta_nll", "value": 0.2, "stderr": 0.01, "n": 3, "unit": "nats/token", "how": how},
        {"metric": "mlp_density", "value": keep, "stderr": None, "n": 3072, "unit": "share", "how": how},
    ]
    description = {
        "model": "tiny",
        "model_sha256": "m" * 64,
        "policy": policy,
        "policy_version": 1,
        "settings": {"keep": keep},
        "text": "prose",
        "text_sha256": "t" * 64,
        "evaluation": {"version": 1, "text": "prose", "tokens": 3072, "window": 1024, "dtype": "float32"},
    }
    description |= changes
    return event(
        "cell_finished",
        second,
        cell=cell,
        description=description,
        measurements=measurements,
        windows={"delta_nll": values},
        seconds=1.5,
    )


def ended(second: int = 9, status: str = "done", message: str = "2 cells measured.") -> dict[str, Any]:
    return event("run_finished", second, status=status, message=message)


def sweep(cells: list[str] | None = None, second: int = 0) -> list[dict[str, Any]]:
    """A whole run of some cells."""
    names = ["c0", "c1"] if cells is None else cells
    log = [started(second), event("run_planned", second, cells=names)]
    for index, cell in enumerate(names):
        log.append(event("cell_started", second + index, cell=cell))
        log.append(event("progress", second + index, cell=cell, done=index, total=6, seconds_left=None))
        log.append(finished(cell, second + index, keep=0.25 + index / 4))
    return [*log, ended(second + len(names))]


def lines(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(e, separators=(",", ":")).encode() + b"\n" for e in events)


def write_run(
    home: Home, run: str = "r1", events: list[dict[str, Any]] | None = None, second: int = 0
) -> Path:
    """Write a run folder; returns its events.jsonl."""
    folder = home.runs / run
    folder.mkdir()
    asked = {"run": run, "name": f"Run {run}", "kind": "sweep", "created_at": at(second), "spec": {"a": 1}}
    (folder / "run.json").write_text(json.dumps(asked))
    path = folder / "events.jsonl"
    if events is None or events:
        path.write_bytes(lines(sweep(second=second) if events is None else events))
    return path


def content(store: Store) -> dict[str, list[str]]:
    """Everything in the store, in an order of its own."""
    return {table: sorted(map(repr, store.rows(f"SELECT * FROM {table}"))) for table in TABLES}


def status(store: Store, run: str = "r1") -> str:
    return str(store.rows("SELECT status FROM runs WHERE run_id = $run", {"run": run})[0][0])
