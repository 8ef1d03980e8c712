from __future__ import annotations

import subprocess
import sys
from typing import Any

import psutil
import pytest
from results_samples import ended, event, lines, started, status, this_process, write_run

from backend.home import Home
from backend.results import Store, queries
from backend.results import store as store_module


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], "queued"),
        ([started(process=this_process())], "running"),
        ([started(process=this_process()), event("run_paused", 1)], "paused"),
        ([started(process=this_process()), event("run_paused", 1), event("run_resumed", 2)], "running"),
        ([started(), ended(status="done")], "done"),
        ([started(), ended(status="cancelled")], "cancelled"),
        ([started(), ended(status="failed")], "failed"),
        ([started()], "interrupted"),
        ([started(), event("run_paused", 1)], "interrupted"),
        ([event("run_started", 0)], "interrupted"),
        ([started(process=this_process() | {"started": 1.0})], "interrupted"),
        ([started(), ended(status="failed"), started(20, this_process())], "running"),
    ],
)
def test_status(home: Home, store: Store, events: list[dict[str, Any]], expected: str) -> None:
    write_run(home, events=events)
    store.ingest()
    assert status(store) == expected


def test_a_run_whose_process_dies_is_interrupted_and_may_be_resumed(home: Home, store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}
    path = write_run(home, events=[started(process=process)])
    store.ingest()
    assert status(store) == "running"
    child.kill()  # not waited for: a zombie is no worker
    psutil.wait_procs([psutil.Process(child.pid)], timeout=0.2)
    version = store.version
    store.ingest()
    assert status(store) == "interrupted"
    assert store.version > version
    child.communicate()
    with path.open("ab") as file:
        file.write(lines([started(30, this_process())]))
    store.ingest()
    run = queries.run(store, "r1")
    assert run is not None
    assert run.status == "running"
    assert run.started_at is not None
    assert run.started_at.second == 0
    assert run.provenance["process"] == this_process()


def test_a_run_that_ends_while_it_is_looked_at_is_not_called_interrupted(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_run(home, events=[started()])
    found_dead = store_module.abandoned

    def ends_just_now(cursor: Any) -> list[str]:
        path.write_bytes(lines([started(), ended()]))
        return found_dead(cursor)

    monkeypatch.setattr(store_module, "abandoned", ends_just_now)
    assert store.ingest() == 2
    assert status(store) == "done"
