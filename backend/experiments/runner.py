"""Runs a sweep cell by cell, and says what happens in the run's events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from backend.errors import UserError
from backend.experiments.cells import Cell
from backend.experiments.evaluations import KeptOutcome, Outcome
from backend.experiments.events import EventLog
from backend.experiments.known import KnownResult
from backend.experiments.laboratory import Laboratory
from backend.experiments.provenance import provenance
from backend.experiments.runs import Cancelled, RunFolder
from backend.experiments.sweep import Plan


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        cell: The cell that runs, as "dip density=0.5".
        done: Windows done, of the cells that had to be run.
        total: Windows of all those cells.
        seconds_left: Estimate by the windows so far; None before the first.
    """

    cell: str
    done: int
    total: int
    seconds_left: float | None


def run_sweep(
    folder: RunFolder,
    laboratory: Laboratory,
    known: dict[str, KnownResult],
    *,
    checkpoint: Callable[[], None] = lambda: None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> str:
    """Run what a run folder asks for; cells that are known are found, not run.

    Args:
        folder: The run.
        laboratory: Models and texts.
        known: Finished cells by id; those this run finishes are added.
        checkpoint: Called between windows, when the model is untouched: the place to wait, to serve
            something more urgent, or to raise ``Cancelled``.
        report: Told of the progress after each window.

    Returns:
        The run's status: ``done``, ``failed`` (some cell failed) or ``cancelled``.

    Raises:
        UserError: Nothing could be run (a model or text is missing), or the disk is full.
    """
    log = folder.log()
    made_with = provenance(*laboratory.machine())
    log.append("run_started", provenance=made_with)
    try:
        cells = [(plan, laboratory.resolve(plan)) for plan in folder.sweep.plans()]
        log.append("run_planned", cells=[cell.id for _, cell in cells])
        status, message = _run_cells(cells, log, laboratory, known, made_with, checkpoint, report)
    except Cancelled:
        status, message = "cancelled", "Cancelled; the cells finished before are kept."
    except UserError as error:
        log.append("run_finished", status="failed", message=str(error))
        raise
    log.append("run_finished", status=status, message=message)
    return status


def _run_cells(
    cells: list[tuple[Plan, Cell]],
    log: EventLog,
    laboratory: Laboratory,
    known: dict[str, KnownResult],
    made_with: dict[str, Any],
    checkpoint: Callable[[], None],
    report: Callable[[Progress], None],
) -> tuple[str, str]:
    todo = []
    for plan, cell in cells:
        if cell.id in known:
            log.append("cell_found", cell=cell.id, run=known[cell.id].run)
        else:
            todo.append((plan, cell))
    total = sum(plan.evaluation.steps for plan, _ in todo)
    clock = Clock(total)
    failed = 0
    for plan, cell in todo:
        name = cell_name(cell)
        log.append("cell_started", cell=cell.id, name=name)
        started = time.perf_counter()
        try:
            for result in _steps(plan, laboratory, checkpoint):  # noqa: B007
                clock.window_done()
                left = clock.seconds_left()
                log.append("progress", cell=cell.id, done=clock.done, total=total, seconds_left=left)
                report(Progress(name, clock.done, total, left))
            if isinstance(result, KeptOutcome):
                result.keep(laboratory.home, cell, made_with)
        except Cancelled:
            raise
        except UserError as error:
            failed += 1
            log.append("cell_failed", cell=cell.id, message=str(error))
            continue
        seconds = round(time.perf_counter() - started, 3)
        value_bytes = laboratory.subject(plan.model, plan.evaluation.dtype).value_bytes
        measurements = result.measurements(value_bytes)
        log.append(
            "cell_finished",
            cell=cell.id,
            description=cell.description(),
            measurements=measurements,
            windows=result.windows,
            seconds=seconds,
        )
        known[cell.id] = KnownResult(log.path.parent.name, measurements, seconds)
    if failed:
        return "failed", f"{failed} of {_cells(len(cells))} failed; the others are kept."
    return "done", f"{_cells(len(todo))} run, {len(cells) - len(todo)} found."


def _steps(plan: Plan, laboratory: Laboratory, checkpoint: Callable[[], None]) -> Iterator[Outcome]:
    """Yield the growing result of a cell, with a checkpoint before each step."""
    checkpoint()
    for result in plan.evaluation.outcomes(laboratory, plan.model, plan.policy):
        yield result
        checkpoint()


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def cell_name(cell: Cell) -> str:
    """Return a cell's short name, as "dip density=0.5"."""
    settings = " ".join(f"{key}={value}" for key, value in cell.policy.canonical().items())
    return f"{cell.policy.name} {settings}".rstrip()


class Clock:
    """Estimates the time left from the windows done in this run."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.started = time.perf_counter()

    def window_done(self) -> None:
        """Count one window."""
        self.done += 1

    def seconds_left(self) -> float:
        """Return the time the windows left will take, at the mean pace so far."""
        elapsed = time.perf_counter() - self.started
        return round(elapsed / self.done * (self.total - self.done), 1)
