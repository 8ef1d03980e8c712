"""Run folders: made when a run is asked for, before anything runs; the truth of what was asked and found."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from backend.errors import UserError
from backend.experiments.events import EventLog, now
from backend.experiments.sweep import Sweep
from backend.home import Home

RunKind = Literal["sweep", "point", "recording", "generation", "prompts"]
GENERATIONS: tuple[RunKind, ...] = ("generation", "prompts")
"""Kinds of runs that write texts."""


class Asked(Protocol):
    """What a run may be asked to do: a sweep, or a generation."""

    @property
    def name(self) -> str:
        """A short name for the run's id."""
        ...

    def plans(self) -> Sequence[Any]:
        """Return what there is to do; raises ``UserError`` if something asked for is wrong."""
        ...

    def as_asked(self) -> dict[str, Any]:
        """Return it as the plain values that ``run.json`` keeps."""
        ...


class Cancelled(Exception):  # noqa: N818
    """The run was asked to stop; no error."""


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, ``runs/<id>/``."""

    path: Path

    @classmethod
    def create(cls, home: Home, sweep: Asked, kind: RunKind) -> RunFolder:
        """Make the folder of a new run and write what is asked.

        Raises:
            UserError: The disk is full or the home folder cannot be written.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        run = f"{stamp}-{sweep.name}-{secrets.token_hex(2)}"
        folder = cls(home.runs / run)
        asked = {
            "run": run, "name": sweep.name, "kind": kind, "created_at": now(), "spec": sweep.as_asked(),
        }  # fmt: skip
        try:
            folder.path.mkdir(parents=True)
            write_whole(folder.path / "run.json", asked)
        except OSError as error:
            raise UserError(f"The run cannot be written to {home.runs} ({error.strerror}).") from error
        return folder

    @classmethod
    def open(cls, home: Home, run: str) -> RunFolder:
        """Return the folder of an existing run; an unknown one raises ``UserError``."""
        folder = cls(home.runs / run)
        if not re.fullmatch(r"[\w.-]+", run) or not (folder.path / "run.json").is_file():
            raise UserError(f"There is no run called '{run}' in {home.runs}.")
        return folder

    @property
    def id(self) -> str:
        """The run's id: when it was asked for, its name, four random hex digits."""
        return self.path.name

    @property
    def asked(self) -> dict[str, Any]:
        """What ``run.json`` says."""
        content: dict[str, Any] = json.loads((self.path / "run.json").read_text())
        return content

    @property
    def sweep(self) -> Sweep:
        """What the run is to do."""
        return Sweep.parse(self.asked["spec"], f"run {self.id}")

    def log(self) -> EventLog:
        """Return the run's event log, to append to."""
        return EventLog(self.path)

    def events(self) -> list[dict[str, Any]]:
        """Return the events so far; a torn last line is left out."""
        path = self.path / "events.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def failure(self) -> str:
        """Return the sentence of the last cell that failed, or of the run's end."""
        told = [event for event in self.events() if event["kind"] in ("cell_failed", "run_finished")]
        failed = [event for event in told if event["kind"] == "cell_failed"] or told
        return str(failed[-1]["message"]) if failed else "The run was interrupted."

    def finished(self) -> bool:
        """Tell whether the run has come to its end, whatever its status."""
        events = self.events()
        return bool(events) and events[-1]["kind"] == "run_finished"

    def raise_flag(self, flag: Literal["cancel", "pause"]) -> None:
        """Ask the run to stop or to wait; it obeys at the next window."""
        (self.path / flag).touch()

    def lower_flag(self, flag: Literal["cancel", "pause"]) -> None:
        """Take the request back."""
        (self.path / flag).unlink(missing_ok=True)

    def has_flag(self, flag: Literal["cancel", "pause"]) -> bool:
        """Tell whether the run was asked to stop or to wait."""
        return (self.path / flag).exists()

    def raise_if_cancelled(self) -> None:
        """Obey a request to stop: take it back and raise ``Cancelled``."""
        if self.has_flag("cancel"):
            self.lower_flag("cancel")
            raise Cancelled


def latest_unfinished(home: Home, sweep: Sweep) -> RunFolder | None:
    """Return the newest run of this very sweep that has not come to its end, if there is one."""
    for path in sorted(home.runs.glob("*/run.json"), reverse=True):
        folder = RunFolder(path.parent)
        kind = folder.asked["kind"]
        if kind not in GENERATIONS and not folder.finished() and folder.sweep == sweep:
            return folder
    return None


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file so that a reader sees all of it or none."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(json.dumps(content))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
