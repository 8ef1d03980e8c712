"""The resident worker, as a real process on a tiny model: queue, urgency, cancel, pause, kill, resume."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest

from backend.experiments import client
from backend.experiments.jobs import waiting
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import Sweep
from backend.generations import GenerationRequest
from backend.home import Home
from backend.results import Store, queries
from tests.waiting import of_kind, until


@pytest.fixture
def served(home: Home) -> Iterator[Home]:
    """A home whose workers, children of this process, are ended afterwards."""
    yield home
    # Two quick submissions start two: the second waits for the lock, and would take the ended one's place.
    until(lambda: client.worker_status(home).pid, 30)
    living = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    workers = [each for each in living if str(home.root) in " ".join(each.cmdline())]
    for worker in workers:
        worker.terminate()
    psutil.wait_procs(workers, 10)


def sweep_of(folder, densities, name="tiny", tokens=64):
    return Sweep.parse(
        {
            "name": name,
            "model": str(folder),
            "evaluation": {"text": "prose", "tokens": tokens, "window": 16},
            "policies": [{"method": "dip", "density": densities}],
        },
        "sweep",
    )


def long_sweep(folder):
    return sweep_of(folder, [i / 100 for i in range(2, 99)], name="long", tokens=800)


def ended(folder: RunFolder) -> str | None:
    ends = of_kind(folder, "run_finished")
    return ends[-1]["status"] if ends else None


def test_a_point_passes_a_running_sweep_which_then_goes_on_and_can_be_paused_and_cancelled(
    served, tiny_folder
):
    long = RunFolder.open(served, client.submit(served, long_sweep(tiny_folder), "sweep"))
    behind = RunFolder.open(served, client.submit(served, sweep_of(tiny_folder, [0.11]), "sweep"))
    until(lambda: of_kind(long, "progress"))
    point = RunFolder.open(served, client.submit(served, sweep_of(tiny_folder, [0.505]), "point"))
    until(lambda: ended(point) == "done")
    assert ended(long) is None
    assert not of_kind(behind, "run_started")
    until(lambda: client.worker_status(served).run == long.id)

    client.pause(served, long.id)
    until(lambda: of_kind(long, "run_paused"))
    before = len(of_kind(long, "progress"))
    time.sleep(0.5)
    assert len(of_kind(long, "progress")) == before
    urgent = RunFolder.open(served, client.submit(served, sweep_of(tiny_folder, [0.515]), "point"))
    until(lambda: ended(urgent) == "done")
    client.resume(served, long.id)
    until(lambda: len(of_kind(long, "progress")) > before)

    client.cancel(served, long.id)
    until(lambda: ended(long) == "cancelled")
    until(lambda: ended(behind) == "done", seconds=300)


def test_a_generation_passes_a_running_sweep_and_a_list_of_prompts_waits(served, tiny_folder):
    said = {"model": str(tiny_folder), "style": "raw", "policies": [{"method": "dip", "density": 0.5}]}
    one = GenerationRequest.parse({**said, "prompts": ["abc"], "max_tokens": 8}, "test")
    several = GenerationRequest.parse({**said, "prompts": ["abc", "d"], "max_tokens": 8}, "test")
    long = RunFolder.open(served, client.submit(served, long_sweep(tiny_folder), "sweep"))
    until(lambda: of_kind(long, "progress"))
    behind = RunFolder.open(served, client.submit(served, several, "prompts"))
    passing = RunFolder.open(served, client.submit(served, one, "generation"))
    assert client.jobs_before(served, behind.id) in (0, 1)
    until(lambda: ended(passing) == "done")
    assert ended(long) is None
    assert not of_kind(behind, "run_started")
    client.cancel(served, long.id)
    until(lambda: ended(behind) == "done")
    assert len(of_kind(behind, "generation_started")) == 2


def test_a_run_that_waits_can_be_cancelled(served, tiny_folder):
    long = RunFolder.open(served, client.submit(served, long_sweep(tiny_folder), "sweep"))
    behind = RunFolder.open(served, client.submit(served, sweep_of(tiny_folder, [0.11]), "sweep"))
    client.cancel(served, behind.id)
    assert ended(behind) == "cancelled"
    assert [job.run for job in waiting(served)] in ([], [long.id])
    client.cancel(served, long.id)
    until(lambda: ended(long) == "cancelled")


def test_a_killed_worker_loses_and_doubles_nothing(served, tiny_folder):
    sweep = sweep_of(tiny_folder, [0.2, 0.4, 0.6, 0.8], tokens=3200)
    folder = RunFolder.open(served, client.submit(served, sweep, "sweep"))
    until(lambda: of_kind(folder, "cell_finished"))
    pid = client.worker_status(served).pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: client.worker_status(served).state == "absent", 20)
    assert ended(folder) is None
    with Store.open(served) as store:
        store.ingest()
        assert queries.run(store, folder.id).status == "interrupted"
        kept = set(queries.points(store, run_id=folder.id)["cell_id"])
        assert kept

        client.resume(served, folder.id)
        store.ingest()
        assert queries.run(store, folder.id).status in ("queued", "running")
        until(lambda: ended(folder) == "done")
        store.ingest()
        assert queries.run(store, folder.id).status == "done"
        points = queries.points(store, run_id=folder.id)
    assert kept < set(points["cell_id"])
    assert len(points) == 4
    assert {event["cell"] for event in of_kind(folder, "cell_found")} == kept


def test_two_workers_never_serve_one_home(served, tiny_folder):
    done = RunFolder.open(served, client.submit(served, sweep_of(tiny_folder, [0.5]), "sweep"))
    until(lambda: ended(done) == "done")
    first = client.worker_status(served).pid
    second = subprocess.run(
        [*psutil.Process(first).cmdline()], capture_output=True, text=True, timeout=60, cwd=client.REPOSITORY
    )
    assert "another worker serves" in second.stderr
    assert client.worker_status(served).pid == first


def test_a_worker_with_nothing_to_do_ends(home):
    process = subprocess.Popen(
        [client.sys.executable, "-m", "backend.worker", "--home", str(home.root), "--idle-seconds", "0.5"],
        cwd=client.REPOSITORY,
    )
    assert process.wait(30) == 0
    assert client.worker_status(home).state == "absent"


def test_a_defect_is_logged_and_the_worker_goes_on(served, tiny_folder):
    broken = RunFolder.create(served, sweep_of(tiny_folder, [0.5]), "sweep")
    (broken.path / "run.json").write_text('{"run": "x", "kind": "sweep", "spec": []}')
    client.enqueue(served, broken)
    fine = RunFolder.open(served, client.submit(served, sweep_of(tiny_folder, [0.5]), "sweep"))
    until(lambda: ended(fine) == "done")
    assert ended(broken) == "failed"
