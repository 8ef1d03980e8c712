"""Routing records as files: one Parquet, a row a layer (and one for the cache of all layers)."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.residency.miss_curve import MissCurve
from backend.residency.routing_record import LayerRouting, RoutingRecord
from backend.residency.trace import ExpertTrace

METADATA = b"routing_record"
VERSION = 1
_GLOBAL = -1


def write(record: RoutingRecord, path: Path) -> None:
    """Write a record, whole or not at all; see ``RoutingRecord.save``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [_layer(record, place) for place in range(len(record.layers))]
    if record.global_curves:
        curves = [_curve(rule, start, curve) for (rule, start), curve in record.global_curves.items()]
        rows.append({**dict.fromkeys(rows[0]), "layer": _GLOBAL, "curves": curves})
    said = {
        "version": VERSION,
        "model": record.model,
        "experts": record.experts,
        "lengths": record.lengths,
        "tokens_kept": record.tokens_kept,
        "counted": base64.b64encode(zlib.compress(np.packbits(record.counted).tobytes())).decode(),
        "about": record.about,
    }
    table = pa.Table.from_pylist(rows).replace_schema_metadata({METADATA: json.dumps(said)})
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {path.parent} cannot be made ({error.strerror}).") from error
    try:
        pq.write_table(table, part, compression="zstd", compression_level=19)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"The routing cannot be written to {path.parent} ({error.strerror}).") from error


def read_about(path: Path) -> dict[str, Any]:
    """Return what is said of a record without reading it: model, lengths, about, …

    Raises:
        UserError: The file is no record.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        said: dict[str, Any] = json.loads(pq.read_schema(path).metadata[METADATA])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no routing record of Sparsity Lens.") from error
    if said.get("version") != VERSION:
        raise UserError(f"{path} is of a newer Sparsity Lens (version {said.get('version')}); update it.")
    return said


def read(path: Path) -> RoutingRecord:
    """Read a record; see ``RoutingRecord.load``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    said = read_about(path)
    try:
        rows = pq.read_table(path).to_pylist()
        return _record(said, rows)
    except (OSError, pa.ArrowException, LookupError, TypeError, ValueError, zlib.error) as error:
        raise UserError(
            f"{path} is damaged and cannot be read as a routing record; remove it, and measure or import it "
            "again."
        ) from error


def _record(said: dict[str, Any], rows: list[dict[str, Any]]) -> RoutingRecord:
    layers = [row for row in rows if row["layer"] != _GLOBAL]
    tokens, kept = sum(said["lengths"]), int(said["tokens_kept"])
    most = max(row["experts"] for row in layers)
    traffic = np.zeros((len(layers), most), np.int64)
    for place, row in enumerate(layers):
        traffic[place, : row["experts"]] = row["traffic"]
    return RoutingRecord(
        model=said["model"],
        layers=tuple(row["layer"] for row in layers),
        experts_by_layer=tuple(row["experts"] for row in layers),
        bytes_by_layer=tuple(row["expert_bytes"] for row in layers),
        lengths=tuple(said["lengths"]),
        counted=_bits(zlib.decompress(base64.b64decode(said["counted"])), tokens),
        traffic=traffic,
        curves={
            (place, each["rule"], each["start"]): MissCurve.from_json(each)
            for place, row in enumerate(layers)
            for each in row["curves"]
        },
        global_curves={
            (each["rule"], each["start"]): MissCurve.from_json(each)
            for row in rows
            if row["layer"] == _GLOBAL
            for each in row["curves"]
        },
        routings=tuple(_routing(row, kept) for row in layers) if kept else (),
        about=said["about"],
    )


def _layer(record: RoutingRecord, place: int) -> dict[str, Any]:
    size = record.experts_by_layer[place]
    row: dict[str, Any] = {
        "layer": record.layers[place],
        "experts": size,
        "expert_bytes": record.bytes_by_layer[place],
        "traffic": record.traffic[place, :size].tolist(),
        "curves": [
            _curve(rule, start, curve) for (at, rule, start), curve in record.curves.items() if at == place
        ],
        "present": None,
        "counts": None,
        "chosen": None,
        "weights": None,
    }
    if record.routings:
        kept = record.routings[place]
        row["present"] = np.packbits(kept.present).tobytes()
        row["counts"] = kept.trace.counts.astype(np.uint16).tobytes()
        row["chosen"] = kept.trace.entries.astype(_type_of(size)).tobytes()
        if kept.weights is not None:
            row["weights"] = kept.weights.astype(np.float16).tobytes()
    return row


def _routing(row: dict[str, Any], kept: int) -> LayerRouting:
    counts = np.frombuffer(row["counts"], np.uint16)
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    entries = np.frombuffer(row["chosen"], _type_of(row["experts"])).astype(np.int32)
    weights = row["weights"]
    return LayerRouting(
        row["layer"],
        ExpertTrace(offsets, entries, row["experts"]),
        _bits(row["present"], kept),
        None if weights is None else np.frombuffer(weights, np.float16).astype(np.float32),
    )


def _curve(rule: str, start: str, curve: MissCurve) -> dict[str, Any]:
    return {"rule": rule, "start": start, **curve.as_json()}


def _bits(packed: bytes, count: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)


def _type_of(experts: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type that holds an expert's index: half of a file is these."""
    return np.uint8 if experts <= 256 else np.uint16
