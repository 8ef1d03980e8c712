"""From lines of ``events.jsonl`` to rows of the store, and from rows to tables in one bulk insert."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import duckdb
import pyarrow as pa

_TIME = pa.timestamp("us")
_WHERE = [("cell_id", pa.string()), ("run_id", pa.string())]
SCHEMAS: dict[str, pa.Schema] = {
    "runs": pa.schema(
        [(name, pa.string()) for name in ("run_id", "name", "kind", "spec", "status")]
        + [(name, _TIME) for name in ("created_at", "started_at", "finished_at")]
        + [(name, pa.string()) for name in ("provenance", "message", "planned", "source", "bundle")]
    ),
    "cells": pa.schema(
        [(name, pa.string()) for name in ("cell_id", "model", "model_sha256", "policy")]
        + [("policy_version", pa.int64())]
        + [(name, pa.string()) for name in ("settings", "text", "text_sha256", "evaluation")]
        + [(name, pa.int64()) for name in ("tokens", "window", "stride")]
        + [("dtype", pa.string())]
    ),
    "results": pa.schema([*_WHERE, ("at", _TIME), ("seconds", pa.float64())]),
    "measurements": pa.schema(
        [
            *_WHERE,
            ("metric", pa.string()),
            ("value", pa.float64()),
            ("stderr", pa.float64()),
            ("n", pa.int64()),
            ("unit", pa.string()),
            ("how", pa.string()),
        ]
    ),
    "windows": pa.schema(
        [*_WHERE, ("metric", pa.string()), ("window_index", pa.int32()), ("value", pa.float64())]
    ),
    "events": pa.schema(
        [
            ("run_id", pa.string()),
            ("seq", pa.int64()),
            ("at", _TIME),
            ("kind", pa.string()),
            ("cell_id", pa.string()),
            ("payload", pa.string()),
        ]
    ),
    "ingest_state": pa.schema(
        [("run_id", pa.string()), ("byte_offset", pa.int64()), ("lines", pa.int64()), ("tail", pa.string())]
    ),
}
"""The columns of the tables that are filled in bulk, in the tables' order."""

MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What reading a line that is no event may raise."""


@dataclass(frozen=True)
class Event:
    """One event: when, what kind, of which cell, and its other keys."""

    at: datetime
    kind: str
    cell_id: str | None
    payload: dict[str, Any]


class Taker(Protocol):
    """Takes events that have tables of their own."""

    def add(self, run_id: str, event: Event) -> None:
        """Take one event; what has a table of its own leaves its payload."""
        ...

    def write(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Write the rows that were taken."""
        ...


@dataclass
class Rows:
    """Rows of one batch, one tuple a row in the order of :data:`SCHEMAS`; a cell's later result replaces."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    cells: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    results: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    measurements: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    windows: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    takers: Sequence[Taker] = ()

    def add(self, run_id: str, seq: int, line: bytes) -> Event:
        """Take one line.

        Args:
            run_id: The run it belongs to.
            seq: Its running number in the file, from 0.
            line: The whole line.

        Raises:
            One of ``MALFORMED``: it is no event; nothing of it was taken.
        """
        event = read_event(line)
        if event.kind == "cell_finished":
            self._add_result(run_id, event)
        for taker in self.takers:
            taker.add(run_id, event)
        text = to_json(event.payload)
        self.events.append((run_id, seq, event.at, event.kind, event.cell_id, text))
        return event

    def _add_result(self, run_id: str, event: Event) -> None:
        """Move a result out of the event: what has a table of its own need not be in the log as well."""
        cell_id = as_text(event.cell_id)
        key = (cell_id, run_id)
        cell = cell_row(cell_id, event.payload["description"])
        seconds = as_number(event.payload.get("seconds"))
        measured = {m["metric"]: (*key, *_measurement(m)) for m in event.payload["measurements"]}
        windows = [
            (*key, as_text(metric), index, as_number(value))
            for metric, values in (event.payload.get("windows") or {}).items()
            for index, value in enumerate(values)
        ]
        for moved in ("description", "measurements", "windows"):
            event.payload.pop(moved, None)
        self.cells.setdefault(cell_id, cell)
        self.results[key] = (*key, event.at, seconds)
        self.measurements[key] = list(measured.values())
        self.windows[key] = windows


def read_event(line: bytes) -> Event:
    """Return the event in ``line``; one of ``MALFORMED`` is raised if there is none."""
    payload = json.loads(line)
    if b"\\ud" in line:  # an unpaired surrogate is valid JSON and no text; no table could hold it
        json.dumps(payload, ensure_ascii=False).encode()
    at = parse_time(payload.pop("at"))
    kind = as_text(payload.pop("kind"))
    cell_id = payload.pop("cell", None)
    return Event(at, kind, None if cell_id is None else as_text(cell_id), payload)


def cell_row(cell_id: str, description: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row of ``cells`` from the description in a ``cell_finished`` event."""
    evaluation = description.get("evaluation") or {}
    window = as_whole(evaluation.get("window"))
    stride = as_whole(evaluation.get("stride"))
    texts = [description.get(name) for name in ("model_sha256", "text", "text_sha256")]
    model_sha256, text, text_sha256 = (None if value is None else as_text(value) for value in texts)
    dtype = evaluation.get("dtype")
    return (
        cell_id,
        as_text(description["model"]),
        model_sha256,
        as_text(description["policy"]),
        as_whole(description.get("policy_version")),
        to_json(description.get("settings") or {}),
        text,
        text_sha256,
        to_json(evaluation),
        as_whole(evaluation.get("tokens")),
        window,
        window if stride is None else stride,
        None if dtype is None else as_text(dtype),
    )


def insert(cursor: duckdb.DuckDBPyConnection, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert many rows at once; a cell that is known already is kept as it is."""
    if not rows:
        return
    schema = SCHEMAS[table]
    columns = [
        pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), schema.types, strict=True)
    ]
    insert_arrow(cursor, table, pa.Table.from_arrays(columns, schema=schema))


def insert_arrow(cursor: duckdb.DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    """Insert an Arrow table whose columns are those of ``SCHEMAS[table]``."""
    names = ", ".join(f'"{name}"' for name in SCHEMAS[table].names)
    on_conflict = "ON CONFLICT DO NOTHING" if table == "cells" else ""
    cursor.register("incoming", rows)
    cursor.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM incoming {on_conflict}")
    cursor.unregister("incoming")


def parse_time(text: str) -> datetime:
    """Return an ISO 8601 time as UTC without a zone, as the store keeps it."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def to_json(value: Any) -> str:
    """Return ``value`` as compact JSON with sorted keys; numbers that JSON has no name for become null."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _measurement(given: dict[str, Any]) -> tuple[str, float, float | None, int | None, str, str]:
    metric, unit, how = as_text(given["metric"]), as_text(given.get("unit", "")), as_text(given["how"])
    return metric, float(given["value"]), as_number(given.get("stderr")), as_whole(given.get("n")), unit, how


def as_text(value: Any) -> str:
    """Return a text; anything else raises one of ``MALFORMED``."""
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {value!r}")
    return value


def as_number(value: Any) -> float | None:
    """Return a number or None; anything else raises one of ``MALFORMED``."""
    return None if value is None else float(value)


def as_whole(value: Any) -> int | None:
    """Return a whole number that a table can hold, or None; anything else raises one of ``MALFORMED``."""
    number = None if value is None else int(value)
    if number is not None and abs(number) >= 2**31 * 2**32:
        raise OverflowError("a number is too large")
    return number
