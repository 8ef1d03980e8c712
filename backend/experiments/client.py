"""What a page or the CLI asks of the worker: run this, stop that, how are you. Files only, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Literal

from filelock import FileLock, Timeout

from backend.experiments.jobs import enqueue, waiting
from backend.experiments.runs import Asked, RunFolder, RunKind
from backend.home import REPOSITORY, Home, data_root
from backend.processes import process_lives

STALE_SECONDS = 30.0
"""A worker whose heartbeat is older than this counts as gone."""


@dataclass(frozen=True)
class WorkerStatus:
    """What is known of the resident worker.

    Attributes:
        state: "absent", "starting" (its lock is held, it has not reported yet), "idle" or "running".
        run: The run it works on, or None.
        pid: Its process, or None.
    """

    state: Literal["absent", "starting", "idle", "running"]
    run: str | None = None
    pid: int | None = None


def submit(home: Home, sweep: Asked, kind: RunKind) -> str:
    """Make a run, queue it, and see that a worker is there.

    Args:
        home: The home folder.
        sweep: What to run: a sweep or a generation.
        kind: "sweep", "recording", "prompts" (a list to generate from), or "point" and "generation", which
            are interactive and pass sweeps.

    Returns:
        The run's id.

    Raises:
        UserError: The sweep is wrong or the home folder cannot be written.
    """
    sweep.plans()
    folder = RunFolder.create(home, sweep, kind)
    enqueue(home, folder)
    ensure_worker(home)
    return folder.id


def cancel(home: Home, run: str) -> None:
    """Stop a run at its next window; one that waits is taken off the queue."""
    folder = RunFolder.open(home, run)
    for job in waiting(home):
        if job.run == run and job.claim():
            folder.log().append("run_finished", status="cancelled", message="Cancelled before it began.")
            return
    folder.raise_flag("cancel")


def pause(home: Home, run: str) -> None:
    """Make a run wait at its next window."""
    RunFolder.open(home, run).raise_flag("pause")


def resume(home: Home, run: str) -> None:
    """Let a paused run go on, or queue one again that was cancelled, interrupted or failed."""
    folder = RunFolder.open(home, run)
    folder.lower_flag("cancel")
    folder.lower_flag("pause")
    if worker_status(home).run != run and all(job.run != run for job in waiting(home)):
        folder.log().append("run_queued")
        enqueue(home, folder)
    ensure_worker(home)


def jobs_before(home: Home, run: str) -> int | None:
    """Return how many jobs the worker takes before a run that waits, None if it does not wait."""
    order = [job.run for job in waiting(home)]
    return order.index(run) if run in order else None


def worker_status(home: Home) -> WorkerStatus:
    """Return how the worker of this home is."""
    try:
        said = json.loads(home.worker_status.read_text())
        alive = process_lives(said) and time.time() - said["at"] < STALE_SECONDS
    except (OSError, ValueError, KeyError):
        alive = False
    if alive:
        return WorkerStatus(said["state"], said["run"], said["pid"])
    return WorkerStatus("starting" if _lock_is_held(home) else "absent")


def ensure_worker(home: Home) -> None:
    """Start the worker in a session of its own, unless one holds this home's lock."""
    if _lock_is_held(home):
        return
    command = [sys.executable, "-m", "backend.worker", "--home", str(home.root)]
    root = data_root()
    if root is not None:
        command += ["--data-root", str(root)]
    with (home.root / "worker.log").open("ab") as log:
        subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def worker_lock(home: Home, timeout: float = 0) -> FileLock:
    """Return the lock that the one worker of a home holds for as long as it lives.

    Args:
        home: The home folder.
        timeout: Seconds to wait for it.
    """
    return FileLock(home.root / "worker.lock", timeout=timeout)


def _lock_is_held(home: Home) -> bool:
    try:
        with worker_lock(home):
            return False
    except Timeout:
        return True
