"""From lines of ``events.jsonl`` to rows of the store, and from rows to tables in one bulk insert."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

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

_SIDE = [("run_id", pa.string()), ("item", pa.int32()), ("side", pa.int32())]
_FORM = [*_SIDE, ("form", pa.string())]
GENERATION_SCHEMAS: dict[str, pa.Schema] = {
    "generations": pa.schema(
        [("run_id", pa.string()), ("item", pa.int32()), ("at", _TIME)]
        + [(name, pa.string()) for name in ("model", "model_sha256", "prompt", "read_as")]
        + [("prompt_tokens", pa.int64())]
    ),
    "generation_sides": pa.schema(
        [*_SIDE, ("policy", pa.string()), ("policy_version", pa.int64())]
        + [(name, pa.string()) for name in ("settings", "how", "execution", "no_text")]
    ),
    "generation_columns": pa.schema(
        [*_SIDE, *((name, pa.string()) for name in ("name", "label", "unit", "better"))]
        + [("low", pa.float64()), ("high", pa.float64())]
    ),
    "generation_tokens": pa.schema(
        [*_FORM, ("place", pa.int32()), ("token_id", pa.int64()), ("token_text", pa.string())]
        + [("logprob", pa.float64())]
        + [(name, pa.string()) for name in ("top", "own", "layers")]
    ),
    "generation_scores": pa.schema(
        [*_FORM, ("place", pa.int32()), ("dense_logprob", pa.float64()), ("kl", pa.float64())]
        + [("dense_rank", pa.int64()), ("top", pa.string())]
    ),
    "generation_ends": pa.schema(
        [*_FORM, ("ended", pa.string()), ("tokens", pa.int64())]
        + [(name, pa.float64()) for name in ("seconds", "tokens_per_s", "first_token_s")]
        + [(name, pa.float64()) for name in ("mlp_density", "model_density")]
        + [("loop", pa.string()), ("counted", pa.string())]
    ),
}
"""The columns of the tables of generated texts; ordered by their leading columns in a bundle."""
SCHEMAS |= GENERATION_SCHEMAS

MALFORMED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
"""What reading a line that is no event may raise."""


@dataclass(frozen=True)
class Event:
    """One event: when, what kind, of which cell, and its other keys."""

    at: datetime
    kind: str
    cell_id: str | None
    payload: dict[str, Any]


@dataclass
class GeneratedRows:
    """Rows of generated texts in one batch, by table; a prompt that was begun again replaces what it had."""

    tables: dict[str, list[tuple[Any, ...]]] = field(
        default_factory=lambda: {name: [] for name in GENERATION_SCHEMAS}
    )
    begun: list[tuple[str, int]] = field(default_factory=list)

    def add(self, run_id: str, event: Event) -> None:
        """Take one event; what has a table of its own leaves its payload."""
        said = event.payload
        if event.kind == "generation_started":
            self._begin(run_id, event)
        elif event.kind == "generation_tokens":
            where = _form_of(run_id, said)
            columns = [(*where[:3], *_column(each)) for each in said.pop("columns", [])]
            tokens = [(*where, place, *_token(each)) for place, each in _placed(said)]
            self.tables["generation_columns"] += columns
            self.tables["generation_tokens"] += tokens
        elif event.kind == "generation_scores":
            where = _form_of(run_id, said)
            self.tables["generation_scores"] += [
                (*where, place, *_score(each)) for place, each in _placed(said)
            ]
        elif event.kind == "generation_side_ended":
            numbers = ("seconds", "tokens_per_s", "first_token_s", "mlp_density", "model_density")
            row = (_text(said["ended"]), _whole(said["tokens"]), *(_number(said[name]) for name in numbers))
            ended = (*row, said["loop"], to_json(said["counted"]))
            self.tables["generation_ends"].append((*_form_of(run_id, said), *ended))

    def _begin(self, run_id: str, event: Event) -> None:
        said = event.payload
        item = int(said["item"])
        texts = (_text(said["model"]), said["model_sha256"], _text(said["prompt"]), _text(said["read_as"]))
        row = (run_id, item, event.at, *texts, _whole(said["prompt_tokens"]))
        sides = [(run_id, item, *_side(each)) for each in said.pop("sides")]
        for table, rows in self.tables.items():
            self.tables[table] = [row for row in rows if row[:2] != (run_id, item)]
        self.begun.append((run_id, item))
        self.tables["generations"].append(row)
        self.tables["generation_sides"] += sides

    def write(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Write the rows."""
        for run_id, item in self.begun:
            for table in GENERATION_SCHEMAS:
                cursor.execute(
                    f"DELETE FROM {table} WHERE run_id = $run AND item = $item", {"run": run_id, "item": item}
                )
        for table, rows in self.tables.items():
            insert(cursor, table, rows)


@dataclass
class Rows:
    """Rows of one batch, one tuple a row in the order of :data:`SCHEMAS`; a cell's later result replaces."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    cells: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    results: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    measurements: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    windows: dict[tuple[str, str], list[tuple[Any, ...]]] = field(default_factory=dict)
    generated: GeneratedRows = field(default_factory=GeneratedRows)

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
        self.generated.add(run_id, event)
        text = to_json(event.payload)
        self.events.append((run_id, seq, event.at, event.kind, event.cell_id, text))
        return event

    def _add_result(self, run_id: str, event: Event) -> None:
        """Move a result out of the event: what has a table of its own need not be in the log as well."""
        cell_id = _text(event.cell_id)
        key = (cell_id, run_id)
        cell = cell_row(cell_id, event.payload["description"])
        seconds = _number(event.payload.get("seconds"))
        measured = {m["metric"]: (*key, *_measurement(m)) for m in event.payload["measurements"]}
        windows = [
            (*key, _text(metric), index, _number(value))
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
    kind = _text(payload.pop("kind"))
    cell_id = payload.pop("cell", None)
    return Event(at, kind, None if cell_id is None else _text(cell_id), payload)


def cell_row(cell_id: str, description: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row of ``cells`` from the description in a ``cell_finished`` event."""
    evaluation = description.get("evaluation") or {}
    window = _whole(evaluation.get("window"))
    stride = _whole(evaluation.get("stride"))
    texts = [description.get(name) for name in ("model_sha256", "text", "text_sha256")]
    model_sha256, text, text_sha256 = (None if value is None else _text(value) for value in texts)
    dtype = evaluation.get("dtype")
    return (
        cell_id,
        _text(description["model"]),
        model_sha256,
        _text(description["policy"]),
        _whole(description.get("policy_version")),
        to_json(description.get("settings") or {}),
        text,
        text_sha256,
        to_json(evaluation),
        _whole(evaluation.get("tokens")),
        window,
        window if stride is None else stride,
        None if dtype is None else _text(dtype),
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
    metric, unit, how = _text(given["metric"]), _text(given.get("unit", "")), _text(given["how"])
    return metric, float(given["value"]), _number(given.get("stderr")), _whole(given.get("n")), unit, how


def _form_of(run_id: str, said: dict[str, Any]) -> tuple[str, int, int, str]:
    return run_id, int(said["item"]), int(said["side"]), _text(said["form"])


def _placed(said: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Take an event's tokens out of it, with their places."""
    first, tokens = int(said["first"]), said.pop("tokens")
    said["count"] = len(tokens)
    return list(enumerate(tokens, start=first))


def _side(said: dict[str, Any]) -> tuple[Any, ...]:
    texts = (_text(said["how"]), _text(said["execution"]), _text(said["no_text"]))
    version = _whole(said["policy_version"])
    return (int(said["side"]), _text(said["policy"]), version, to_json(said["settings"]), *texts)


def _column(said: dict[str, Any]) -> tuple[Any, ...]:
    low, high = said["range"] or (None, None)
    texts = (_text(said["name"]), _text(said["label"]), _text(said["unit"]), said["better"])
    return (*texts, _number(low), _number(high))


def _token(said: dict[str, Any]) -> tuple[Any, ...]:
    own = (to_json(said[name]) for name in ("top", "values", "layers"))
    return (_whole(said["id"]), _text(said["text"]), _number(said["logprob"]), *own)


def _score(said: dict[str, Any]) -> tuple[Any, ...]:
    values = (_number(said["dense_logprob"]), _number(said["kl"]), _whole(said["dense_rank"]))
    return (*values, to_json(said["top"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"text expected, not {value!r}")
    return value


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _whole(value: Any) -> int | None:
    number = None if value is None else int(value)
    if number is not None and abs(number) >= 2**31 * 2**32:
        raise OverflowError("a number is too large")
    return number
