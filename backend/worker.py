"""The resident worker: keeps a model warm and takes runs from the queue, one home's one at a time.

A point (an interactive job) passes a running sweep at its next window; cancel and pause work at the same
grain. It is started by the app or the CLI (``python -m backend.worker --home …``) and ends by itself when it
has had nothing to do for a while. If it is killed, its run counts as interrupted and can be resumed.
"""

from __future__ import annotations

import argparse
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import Timeout

from backend.errors import UserError
from backend.experiments.client import worker_lock
from backend.experiments.jobs import Job, waiting
from backend.experiments.known import known_results
from backend.experiments.laboratory import Laboratory
from backend.experiments.recorder import run_recording
from backend.experiments.runner import run_sweep
from backend.experiments.runs import GENERATIONS, RunFolder, write_whole
from backend.generations.run import run_generation
from backend.home import Home
from backend.processes import process_identity

logger = logging.getLogger("backend.worker")
POLL_SECONDS = 0.1
BEAT_SECONDS = 2.0
IDLE_SECONDS = 1800.0


class Heart:
    """Writes what the worker is doing, and that it lives, every two seconds."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._identity = process_identity()
        self._run: str | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._beat_on, daemon=True, name="heartbeat").start()

    @property
    def run(self) -> str | None:
        """The run that is being worked on."""
        return self._run

    @run.setter
    def run(self, run: str | None) -> None:
        self._run = run
        self.beat()

    def beat(self) -> None:
        """Write the status now."""
        state = "idle" if self._run is None else "running"
        with self._lock:
            try:
                write_whole(
                    self._home.worker_status,
                    {**self._identity, "state": state, "run": self._run, "at": time.time()},
                )
            except OSError as error:  # a full disk: the run itself will say so
                logger.warning("the heartbeat cannot be written: %s", error)

    def _beat_on(self) -> None:
        while True:
            self.beat()
            time.sleep(BEAT_SECONDS)


class Worker:
    """Serves one home's queue.

    Args:
        home: The home folder.
        laboratory: Models and texts, kept warm between jobs.
        idle_seconds: How long to wait for work before ending.
    """

    def __init__(self, home: Home, laboratory: Laboratory, idle_seconds: float = IDLE_SECONDS) -> None:
        self.home = home
        self.laboratory = laboratory
        self.idle_seconds = idle_seconds
        self.heart = Heart(home)

    def serve(self) -> None:
        """Take jobs until there have been none for ``idle_seconds``."""
        last = time.monotonic()
        while time.monotonic() - last < self.idle_seconds:
            jobs = waiting(self.home)
            if jobs and jobs[0].claim():
                self._run(jobs[0])
                last = time.monotonic()
            else:
                time.sleep(POLL_SECONDS)

    def _run(self, job: Job) -> None:
        before = self.heart.run, self.laboratory.report
        try:
            folder = RunFolder.open(self.home, job.run)
            self.heart.run = folder.id
            self.laboratory.report = _report_to(folder)
            checkpoint = partial(self._between_windows, folder, interruptible=not job.urgent)
            if folder.asked["kind"] == "recording":
                run_recording(folder, self.laboratory, checkpoint=checkpoint)
            elif folder.asked["kind"] in GENERATIONS:
                held = partial(self._between_windows, folder, interruptible=False)
                run_generation(folder, self.laboratory, checkpoint=checkpoint, between_tokens=held)
            else:
                run_sweep(folder, self.laboratory, known_results(self.home), checkpoint=checkpoint)
        except UserError as error:
            logger.warning("run %s: %s", job.run, error)
        except Exception:
            logger.exception("run %s failed by a defect", job.run)
            message = (
                "A defect of the program stopped this run; worker.log in the home folder has the details."
            )
            RunFolder.open(self.home, job.run).log().append("run_finished", status="failed", message=message)
        finally:
            self.heart.run, self.laboratory.report = before

    def _between_windows(self, folder: RunFolder, interruptible: bool) -> None:
        """Obey cancel and pause; let urgent jobs pass."""
        paused = False
        while True:
            folder.raise_if_cancelled()
            if interruptible:
                self._serve_urgent()
            if not folder.has_flag("pause"):
                break
            if not paused:
                folder.log().append("run_paused")
            paused = True
            time.sleep(POLL_SECONDS)
        if paused:
            folder.log().append("run_resumed")

    def _serve_urgent(self) -> None:
        for job in waiting(self.home):
            if job.urgent and job.claim():
                self._run(job)


def _report_to(folder: RunFolder) -> Callable[[str, float | None], None]:
    """Return a reporter that logs each step of fetching and loading once (its shares would flood the log)."""
    said: list[str] = []

    def report(message: str, _share: float | None) -> None:
        if message not in said:
            said.append(message)
            folder.log().append("message", message=message)

    return report


def main() -> None:
    """Serve a home, unless another worker already does."""
    parser = argparse.ArgumentParser(prog="python -m backend.worker", description="The resident worker.")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--idle-seconds", type=float, default=IDLE_SECONDS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    home = Home.resolve(arguments.home)
    try:
        # A page that asks whether the lock is held takes it for a moment; so wait a little for it.
        with worker_lock(home, timeout=2):
            laboratory = Laboratory(home, arguments.data_root)
            Worker(home, laboratory, arguments.idle_seconds).serve()
            home.worker_status.unlink(missing_ok=True)
    except Timeout:
        logger.info("another worker serves %s", home.root)


if __name__ == "__main__":
    main()
