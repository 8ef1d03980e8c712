"""What the store knows of a run while its events are read: its status, and how far they were read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from backend.processes import process_lives
from backend.results.generated_rows import GENERATION_SCHEMAS
from backend.results.rows import SCHEMAS, Event, to_json

_SAVED = ("run_id", "status", "started_at", "finished_at", "provenance", "message", "planned")
_DATA = ("events", "windows", "measurements", "results", "ingest_state", *GENERATION_SCHEMAS)


@dataclass
class RunState:
    """One run of this home, as its events tell it.

    Attributes:
        run_id: The name of its folder.
        source: ``local``, ``seed`` or ``import``.
        status: ``queued``, ``running``, ``paused``, ``done``, ``cancelled``, ``failed`` or ``interrupted``.
        started_at: When it started first.
        finished_at: When it finished, None after it was started again.
        provenance: Of its last start, as JSON.
        message: What its end said.
        planned: The ids of its cells, as JSON.
        byte_offset: How much of ``events.jsonl`` was read.
        lines: How many lines that was.
        tail: A fingerprint of the last bytes read, to notice a file that was written anew.
    """

    run_id: str
    source: str
    status: str = "queued"
    started_at: datetime | None = None
    finished_at: datetime | None = None
    provenance: str | None = None
    message: str | None = None
    planned: str | None = None
    byte_offset: int = 0
    lines: int = 0
    tail: str = ""

    def apply(self, event: Event) -> None:
        """Follow one event; only those that change the run itself matter."""
        if event.kind == "run_started":
            self.status, self.finished_at, self.message = "running", None, None
            self.started_at = self.started_at or event.at
            self.provenance = to_json(event.payload.get("provenance") or {})
        elif event.kind == "run_queued":
            self.status, self.finished_at, self.message = "queued", None, None
        elif event.kind == "run_planned":
            self.planned = to_json(event.payload.get("cells") or [])
        elif event.kind == "run_paused":
            self.status = "paused"
        elif event.kind == "run_resumed":
            self.status = "running"
        elif event.kind == "run_finished":
            message = event.payload.get("message")
            self.status, self.finished_at = str(event.payload.get("status", "done")), event.at
            self.message = None if message is None else str(message)


def load_states(cursor: duckdb.DuckDBPyConnection) -> dict[str, RunState]:
    """Return what is known of every run, by id."""
    query = """
        SELECT run_id, source, status, started_at, finished_at, provenance, message, planned,
               coalesce(byte_offset, 0), coalesce(lines, 0), coalesce(tail, '')
        FROM runs LEFT JOIN ingest_state USING (run_id)
    """
    return {row[0]: RunState(*row) for row in cursor.execute(query).fetchall()}


def save_states(cursor: duckdb.DuckDBPyConnection, states: list[RunState]) -> None:
    """Write back what the events changed and how far they were read."""
    schema = pa.schema([SCHEMAS["runs"].field(name) for name in _SAVED])
    schema = pa.unify_schemas([schema, SCHEMAS["ingest_state"]])
    columns = {name: [getattr(state, name) for state in states] for name in schema.names}
    cursor.register("incoming", pa.table(columns, schema=schema))
    changes = ", ".join(f"{name} = incoming.{name}" for name in _SAVED[1:])
    cursor.execute(f"UPDATE runs SET {changes} FROM incoming WHERE runs.run_id = incoming.run_id")
    cursor.execute(
        "INSERT OR REPLACE INTO ingest_state SELECT run_id, byte_offset, lines, tail FROM incoming"
    )
    cursor.unregister("incoming")


def abandoned(cursor: duckdb.DuckDBPyConnection) -> list[str]:
    """Return the local runs that are said to run or to be paused and whose process is gone."""
    said = "SELECT run_id, provenance FROM runs WHERE source = 'local' AND status IN ('running', 'paused')"
    rows = cursor.execute(said).fetchall()
    return [run_id for run_id, provenance in rows if not process_lives(_process(provenance))]


def _process(provenance: str | None) -> Any:
    return json.loads(provenance).get("process") if provenance else None


def erase(cursor: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Delete what was read of a run's events, but not the run."""
    for table in _DATA:
        cursor.execute(f"DELETE FROM {table} WHERE run_id = $run", {"run": run_id})
    cursor.execute("DELETE FROM cells WHERE cell_id NOT IN (SELECT cell_id FROM results)")


def forget(cursor: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """Delete a run with all that came from it, and the cells that no other run measured."""
    erase(cursor, run_id)
    cursor.execute("DELETE FROM runs WHERE run_id = $run", {"run": run_id})
