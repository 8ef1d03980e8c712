"""From events of generated texts to rows of their tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from backend.results.rows import SCHEMAS, Event, as_number, as_text, as_whole, insert, to_json


def _columns(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, kind) for name in names]


_STRING, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_ITEM = [("run_id", _STRING), ("item", pa.int32())]
_SIDE = [*_ITEM, ("side", pa.int32())]
_FORM = [*_SIDE, ("form", _STRING)]
_PLACE = [*_FORM, ("place", pa.int32())]
GENERATION_SCHEMAS: dict[str, pa.Schema] = {
    name: pa.schema(columns)
    for name, columns in {
        "generations": [
            *_ITEM,
            ("at", pa.timestamp("us")),
            *_columns(_STRING, "model", "model_sha256", "prompt", "read_as"),
            ("prompt_tokens", _WHOLE),
        ],
        "generation_sides": [
            *_SIDE,
            ("policy", _STRING),
            ("policy_version", _WHOLE),
            *_columns(_STRING, "settings", "how", "execution", "no_text"),
        ],
        "generation_columns": [
            *_SIDE,
            *_columns(_STRING, "name", "label", "unit", "better"),
            *_columns(_REAL, "low", "high"),
        ],
        "generation_tokens": [
            *_PLACE,
            ("token_id", _WHOLE),
            ("token_text", _STRING),
            *_columns(_REAL, "logprob", "seconds"),
            *_columns(_STRING, "top", "own", "layers"),
        ],
        "generation_scores": [
            *_PLACE,
            *_columns(_REAL, "dense_logprob", "kl"),
            ("dense_rank", _WHOLE),
            ("top", _STRING),
        ],
        "generation_ends": [
            *_FORM,
            ("ended", _STRING),
            ("tokens", _WHOLE),
            *_columns(_REAL, "seconds", "tokens_per_s", "first_token_s", "mlp_density", "model_density"),
            *_columns(_STRING, "loop", "counted"),
        ],
    }.items()
}
"""The columns of the tables of generated texts, in the tables' order."""
SCHEMAS |= GENERATION_SCHEMAS


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
            self.tables["generation_ends"].append((*_form_of(run_id, said), *_ended(said)))

    def _begin(self, run_id: str, event: Event) -> None:
        said = event.payload
        item = int(said["item"])
        sha256, prompt, read_as = said["model_sha256"], as_text(said["prompt"]), as_text(said["read_as"])
        texts = (as_text(said["model"]), sha256, prompt, read_as)
        row = (run_id, item, event.at, *texts, as_whole(said["prompt_tokens"]))
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


def _form_of(run_id: str, said: dict[str, Any]) -> tuple[str, int, int, str]:
    return run_id, int(said["item"]), int(said["side"]), as_text(said["form"])


def _placed(said: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Take an event's tokens out of it, with their places."""
    first, tokens = int(said["first"]), said.pop("tokens")
    said["count"] = len(tokens)
    return list(enumerate(tokens, start=first))


def _ended(said: dict[str, Any]) -> tuple[Any, ...]:
    names = ("seconds", "tokens_per_s", "first_token_s", "mlp_density", "model_density")
    numbers = (as_number(said[name]) for name in names)
    return (
        as_text(said["ended"]),
        as_whole(said["tokens"]),
        *numbers,
        said["loop"],
        to_json(said["counted"]),
    )


def _side(said: dict[str, Any]) -> tuple[Any, ...]:
    texts = (as_text(said["how"]), as_text(said["execution"]), as_text(said["no_text"]))
    version = as_whole(said["policy_version"])
    return (int(said["side"]), as_text(said["policy"]), version, to_json(said["settings"]), *texts)


def _column(said: dict[str, Any]) -> tuple[Any, ...]:
    low, high = said["range"] or (None, None)
    texts = (as_text(said["name"]), as_text(said["label"]), as_text(said["unit"]), said["better"])
    return (*texts, as_number(low), as_number(high))


def _token(said: dict[str, Any]) -> tuple[Any, ...]:
    own = (to_json(said[name]) for name in ("top", "values", "layers"))
    numbers = (as_number(said["logprob"]), as_number(said["seconds"]))
    return (as_whole(said["id"]), as_text(said["text"]), *numbers, *own)


def _score(said: dict[str, Any]) -> tuple[Any, ...]:
    values = (as_number(said["dense_logprob"]), as_number(said["kl"]), as_whole(said["dense_rank"]))
    return (*values, to_json(said["top"]))
