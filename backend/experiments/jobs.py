"""The worker's queue: one file a waiting run, in the order of its name; urgent ones first."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from backend.errors import UserError
from backend.experiments.runs import RunFolder, RunKind, write_whole
from backend.home import Home

PRIORITIES: dict[RunKind, int] = {"point": 0, "generation": 0, "recording": 1, "sweep": 1, "prompts": 1}
"""An interactive point or generation passes a running sweep; a list of prompts waits as a sweep does."""


@dataclass(frozen=True)
class Job:
    """A run that waits for the worker."""

    path: Path
    run: str
    urgent: bool

    def claim(self) -> bool:
        """Take the job off the queue; False if it is gone already."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True


def enqueue(home: Home, folder: RunFolder) -> None:
    """Put a run on the queue, behind those of its priority.

    Raises:
        UserError: The queue cannot be written.
    """
    name = f"{PRIORITIES[folder.asked['kind']]}-{time.time_ns():020d}-{folder.id}.json"
    try:
        write_whole(home.queue / name, {"run": folder.id})
    except OSError as error:
        raise UserError(f"The run cannot be queued in {home.queue} ({error.strerror}).") from error


def waiting(home: Home) -> list[Job]:
    """Return the waiting jobs, the next one first."""
    jobs = []
    for path in sorted(home.queue.glob("[0-9]-*.json")):
        try:
            run = str(json.loads(path.read_text())["run"])
        except (OSError, ValueError, KeyError):  # claimed meanwhile, or not ours
            continue
        jobs.append(Job(path, run, path.name.startswith(f"{PRIORITIES['point']}-")))
    return jobs
