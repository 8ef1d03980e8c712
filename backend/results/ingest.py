"""Taking new events out of the run folders: exactly once, in batches, each in one transaction.

How far a run's ``events.jsonl`` was read is stored in the same transaction as the rows made from it, so a
process killed at any moment loses nothing and doubles nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from backend.results.generated_rows import GeneratedRows
from backend.results.rows import MALFORMED, Rows, insert, parse_time, to_json
from backend.results.run_state import RunState, abandoned, erase, forget, load_states, save_states

BATCH_BYTES = 4 * 2**20
"""How much is read into one transaction; bounds memory and how long readers wait."""
_TAIL_BYTES = 256


@dataclass
class Batch:
    """What one transaction took.

    Attributes:
        events: Events taken.
        read: Bytes and new runs taken; 0 when there is nothing left to read.
        notices: Sentences on what could not be read.
    """

    events: int = 0
    read: int = 0
    notices: list[str] = field(default_factory=list)


def run_folders(runs: Path) -> list[Path]:
    """Return the run folders in ``runs``, by name."""
    return sorted(folder for folder in runs.iterdir() if folder.is_dir()) if runs.is_dir() else []


def take_batch(cursor: duckdb.DuckDBPyConnection, folders: list[Path], budget: int = BATCH_BYTES) -> Batch:
    """Read at most about ``budget`` bytes of new events from ``folders`` into the open transaction.

    Args:
        cursor: A cursor inside a transaction.
        folders: Run folders; one without a readable ``run.json`` is left for later.
        budget: Bytes.
    """
    states = load_states(cursor)
    batch, rows, touched = Batch(), Rows(takers=[GeneratedRows()]), []
    for folder in folders:
        if batch.read >= budget:
            break
        state = states.get(folder.name)
        if state is None or state.source != "local":
            state = _register(cursor, folder, replaces=state is not None)
            if state is None:
                continue
            batch.read += 1
        state, chunk = _new_lines(cursor, folder, state, budget - batch.read)
        if chunk:
            batch.read += len(chunk)
            batch.notices += _take_lines(rows, state, chunk)
            touched.append(state)
    if touched:
        _write(cursor, rows)
        save_states(cursor, touched)
    batch.events = len(rows.events)
    return batch


def mark_interrupted(cursor: duckdb.DuckDBPyConnection, runs: list[str]) -> int:
    """Set the status of those of ``runs`` that are abandoned; return how many."""
    gone = [run_id for run_id in abandoned(cursor) if run_id in runs]
    for run_id in gone:
        cursor.execute("UPDATE runs SET status = 'interrupted' WHERE run_id = $run", {"run": run_id})
    return len(gone)


def _register(cursor: duckdb.DuckDBPyConnection, folder: Path, replaces: bool) -> RunState | None:
    """Store a new run from its ``run.json``; None while that is absent or cannot be read.

    A run of the same id that came from a bundle is replaced: the folder knows more.
    """
    try:
        asked: dict[str, Any] = json.loads((folder / "run.json").read_bytes())
        json.dumps(asked, ensure_ascii=False).encode()  # no table could hold an unpaired surrogate
        name, kind, created = str(asked["name"]), str(asked["kind"]), parse_time(asked["created_at"])
        spec = to_json(asked.get("spec") or {})
    except (OSError, *MALFORMED):
        return None
    if replaces:
        forget(cursor, folder.name)
    row = (folder.name, name, kind, spec, "queued", created, None, None, None, None, None, "local", None)
    insert(cursor, "runs", [row])
    return RunState(folder.name, "local")


def _new_lines(
    cursor: duckdb.DuckDBPyConnection, folder: Path, state: RunState, budget: int
) -> tuple[RunState, bytes]:
    """Return whole lines that were not read yet; all of them if what had been read is no longer there."""
    path = folder / "events.jsonl"
    try:
        size = path.stat().st_size
        if size == state.byte_offset:
            return state, b""
        with path.open("rb") as file:
            known = min(_TAIL_BYTES, state.byte_offset)
            file.seek(state.byte_offset - known)
            before = file.read(known)
            if size < state.byte_offset or _fingerprint(before) != state.tail:
                if state.byte_offset:
                    erase(cursor, state.run_id)
                    state = RunState(state.run_id, state.source)
                before = b""
                file.seek(0)
            chunk = _whole_lines(file, budget)
    except FileNotFoundError:
        return state, b""
    if chunk:
        state.byte_offset += len(chunk)
        state.tail = _fingerprint((before + chunk)[-_TAIL_BYTES:])
    return state, chunk


def _whole_lines(file: BinaryIO, budget: int) -> bytes:
    """Read about ``budget`` bytes and leave a last line without its end for later."""
    chunk = file.read(budget)
    while chunk and b"\n" not in chunk and (more := file.read(BATCH_BYTES)):
        chunk += more  # one line longer than the budget
    return chunk[: chunk.rfind(b"\n") + 1]


def _fingerprint(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _take_lines(rows: Rows, state: RunState, chunk: bytes) -> list[str]:
    """Add the lines to ``rows`` and follow them in ``state``; return a sentence for each that is no event."""
    notices = []
    for line in chunk.split(b"\n")[:-1]:
        try:
            state.apply(rows.add(state.run_id, state.lines, line))
        except MALFORMED:
            notices.append(
                f"Line {state.lines + 1} of runs/{state.run_id}/events.jsonl is no event and was skipped."
            )
        state.lines += 1
    return notices


def _write(cursor: duckdb.DuckDBPyConnection, rows: Rows) -> None:
    """Write a batch's rows; a cell that a resumed run finished again replaces its earlier result."""
    if rows.results:
        cells, runs = zip(*rows.results, strict=True)
        cursor.register("again", pa.table({"cell_id": cells, "run_id": runs}))
        known = "SELECT count(*) FROM results SEMI JOIN again USING (cell_id, run_id)"
        if cursor.execute(known).fetchall()[0][0]:
            for table in ("results", "measurements", "windows"):
                cursor.execute(
                    f"DELETE FROM {table} USING again "
                    f"WHERE {table}.cell_id = again.cell_id AND {table}.run_id = again.run_id"
                )
        cursor.unregister("again")
    insert(cursor, "events", rows.events)
    insert(cursor, "cells", list(rows.cells.values()))
    insert(cursor, "results", list(rows.results.values()))
    insert(cursor, "measurements", list(chain.from_iterable(rows.measurements.values())))
    insert(cursor, "windows", list(chain.from_iterable(rows.windows.values())))
    for taker in rows.takers:
        taker.write(cursor)
