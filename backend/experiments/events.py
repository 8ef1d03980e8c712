r"""What a run says while it runs: one JSON object a line in ``runs/<run>/events.jsonl``.

The run folder is the truth; the store is made from it and can always be made again. Beside the events lie
``run.json`` (what was asked; written once, before anything runs) and the flags ``cancel`` and ``pause``.

Every event has ``at`` (UTC, ISO 8601) and ``kind``:

| kind | more keys |
|---|---|
| ``run_started`` | ``provenance``: commit, packages, machine, device, threads, process (pid, started) |
| ``run_planned`` | ``cells``: ids in order, once models and texts are known |
| ``cell_started`` | ``cell``, ``name`` (as "dip density=0.5") |
| ``progress`` | ``cell``, ``done`` and ``total`` windows of the run, ``seconds_left`` |
| ``cell_finished`` | ``cell``, ``description``, ``measurements``, ``windows``, ``seconds`` (see below) |
| ``cell_found`` | ``cell``, ``run``: that earlier run holds its result |
| ``cell_failed`` | ``cell``, ``message`` |
| ``message`` | ``message``: a sentence for the log |
| ``generation_started`` | ``item``: the prompt's number; ``prompt``, ``read_as``, ``model``, ``sides`` |
| ``generation_tokens`` | ``item``, ``side``, ``form``, ``first`` place, ``tokens``; their new ``columns`` |
| ``generation_scores`` | the same of the dense model's view of tokens that were written |
| ``generation_side_ended`` | ``item``, ``side``, ``form``, why it ``ended``, speed and densities |
| ``run_paused`` / ``run_resumed`` | |
| ``run_queued`` | a run that had ended waits for the worker again |
| ``run_finished`` | ``status``: ``done``, ``cancelled`` or ``failed``; ``message`` |

Of a finished cell, ``description`` is what ``Cell.description`` returns, ``measurements`` a list of
:class:`Measurement`, ``windows`` maps a metric to one value a window.

A run without ``run_finished`` is running if its process lives, else interrupted.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

from backend.errors import UserError

EventKind = Literal[
    "run_started",
    "run_planned",
    "cell_started",
    "progress",
    "cell_finished",
    "cell_found",
    "cell_failed",
    "message",
    "generation_started",
    "generation_tokens",
    "generation_scores",
    "generation_side_ended",
    "run_paused",
    "run_resumed",
    "run_queued",
    "run_finished",
]


class Measurement(TypedDict):
    """One number with its uncertainty and how it was got."""

    metric: str
    value: float
    stderr: float | None
    n: int
    unit: str
    how: Literal["measured", "simulated", "oracle"]


class EventLog:
    """Appends events to a run's ``events.jsonl``; each line is whole on disk before the next is begun.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"
        _end_torn_line(self.path)

    def append(self, kind: EventKind, **payload: Any) -> None:
        """Write one event.

        Raises:
            UserError: The disk is full or the folder is gone; the events before it are whole.
        """
        line = json.dumps({"at": now(), "kind": kind, **payload}, separators=(",", ":")) + "\n"
        try:
            with self.path.open("ab", buffering=0) as file:
                start = file.tell()
                written = file.write(line.encode())
                if written != len(line.encode()):
                    file.truncate(start)
                    raise OSError(28, os.strerror(28))
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"The run's events cannot be written to {self.path.parent} ({error.strerror}); what was "
                "written before is kept. Make room, then resume the run."
            ) from error


def now() -> str:
    """Return the time as events state it: UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _end_torn_line(path: Path) -> None:
    """Cut a last line that a killed process left without its end, so that the next event starts a line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            file.truncate(whole)
