"""Measurements as a file for other programs: CSV, JSON or Parquet."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from backend.errors import UserError
from backend.registry import did_you_mean
from backend.results import queries
from backend.results.store import Store

Format = Literal["csv", "json", "parquet"]
FORMATS: tuple[str, ...] = get_args(Format)


def to_bytes(frame: pd.DataFrame, format: str) -> bytes:
    """Return measurements in a format.

    Args:
        frame: What :func:`backend.results.queries.measurements` returned.
        format: ``csv``, ``json`` (one object with the list ``measurements``; settings as an object, no
            number as null) or ``parquet`` (zstd).

    Raises:
        UserError: There is no such format.
    """
    if format not in FORMATS:
        raise UserError(f"Results cannot be written as '{format}'; {did_you_mean(format, list(FORMATS))}")
    if format == "csv":
        return frame.to_csv(index=False, lineterminator="\n").encode()
    if format == "json":
        return (json.dumps(to_object(frame), allow_nan=False) + "\n").encode()
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def to_object(frame: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return measurements as plain values: ``{"measurements": [{"model": …, "settings": {…}, …}, …]}``."""
    records = [{str(key): _plain(value) for key, value in row.items()} for row in frame.to_dict("records")]
    return {"measurements": [{**row, "settings": json.loads(row["settings"])} for row in records]}


def export_measurements(store: Store, path: Path, where: Mapping[str, str] | None = None) -> int:
    """Write measurements to ``path`` in the format its ending names.

    Args:
        store: The store.
        path: The file; replaced if it exists.
        where: As :func:`backend.results.queries.measurements` takes it.

    Returns:
        The number of measurements.

    Raises:
        UserError: The ending is no known format, or the file cannot be written.
    """
    frame = queries.measurements(store, where)
    content = to_bytes(frame, path.suffix.removeprefix("."))
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"Results cannot be written to {path} ({error.strerror}).") from error
    return len(frame)


def _plain(value: Any) -> Any:
    if pd.isna(value) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value.item() if hasattr(value, "item") else value
