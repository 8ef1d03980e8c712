"""The data of a figure for paper as one table, and the page without them."""

from __future__ import annotations

import io
import json
from importlib import metadata
from typing import Any

import pandas as pd

from backend.figures.page import Page

COLUMNS = (
    "panel", "number", "series", "x", "x_stderr", "y", "y_stderr", "dominated", "interpolated", "cell", "row",
    "column", "value",
)  # fmt: skip
"""Panel and series by their numbers from 0; of a heat map (and of a token) row, column and value."""
_TYPES = {
    "panel": "int64", "number": "int64", "dominated": "bool", "interpolated": "bool",
    **dict.fromkeys(("x", "x_stderr", "y", "y_stderr", "value"), "float64"),
}  # fmt: skip
_NUMBERS = ("x", "y", "x_err", "y_err", "ids", "details", "faded", "hollow")


def data_frame(page: Page) -> pd.DataFrame:
    """Return what a page draws: one row a point or a cell of a heat map, with exactly ``COLUMNS``."""
    frames = []
    for place, panel in enumerate(page.panels):
        spec = panel.spec
        frame = spec.frame()
        lengths = [len(series.x) for series in spec.series] or [len(frame)]
        numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
        frames.append(frame.assign(panel=place, number=numbers))
    table = pd.concat([frame.reindex(columns=list(COLUMNS)) for frame in frames], ignore_index=True)
    flags = {name: table[name].fillna(False) for name in ("dominated", "interpolated")}
    texts = {
        name: table[name].astype(object).fillna("").astype(str)
        for name in ("series", "cell", "row", "column")
    }
    return table.assign(**flags, **texts).astype(_TYPES)


def to_csv(frame: pd.DataFrame) -> bytes:
    """Return the data as CSV with every digit."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def to_parquet(frame: pd.DataFrame) -> bytes:
    """Return the data as Parquet (zstd)."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, compression="zstd")
    return buffer.getvalue()


def page_json(page: Page, name: str) -> bytes:
    """Return a page without its numbers, for ``reproduce.py``.

    Args:
        page: The page.
        name: The name of the drawn files, without ending.
    """
    said: dict[str, Any] = page.model_dump(mode="json")
    for panel in said["panels"]:
        spec = panel["spec"]
        spec.pop("provenance")
        for series in spec["series"]:
            for key in _NUMBERS:
                series.pop(key)
        if spec["heat"] is not None:
            spec["heat"].pop("values")
        if spec["strip"] is not None:
            spec["strip"].pop("values")
    said |= {"name": name, "matplotlib": metadata.version("matplotlib")}
    return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()
