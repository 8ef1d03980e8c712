"""Routing records as they are stored: one file a cell, in the seed or in the home."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.home import SEED, Home
from backend.residency import RoutingRecord
from backend.residency.routing_file import read_about

FOLDER = "routing"


@dataclass(frozen=True)
class RoutingInfo:
    """What a stored routing record is of.

    Attributes:
        path: Its file.
        cell_id: The cell that measured it.
        description: That cell, as ``Cell.description`` gives it.
        provenance: With what it was made.
    """

    path: Path
    cell_id: str
    description: dict[str, Any]
    provenance: dict[str, Any]


def routing_records(home: Home) -> list[RoutingInfo]:
    """Return the records of the seed and this home; the home's replaces the seed's of the same cell."""
    found: dict[str, RoutingInfo] = {}
    for folder in (SEED / FOLDER, home.root / FOLDER):
        for path in sorted(folder.glob("*.parquet")):
            about = read_about(path)["about"]
            info = RoutingInfo(path, about["cell_id"], about["description"], about["provenance"])
            found[info.cell_id] = info
    return list(found.values())


def save_routing_record(
    home: Home,
    record: RoutingRecord,
    cell_id: str,
    description: dict[str, Any],
    provenance: dict[str, Any],
) -> Path:
    """Write a cell's record into the home, whole or not at all.

    Args:
        home: Where to.
        record: The record.
        cell_id: The cell that measured it.
        description: That cell, as ``Cell.description`` gives it.
        provenance: With what it was made.

    Raises:
        UserError: The disk is full or the home cannot be written.
    """
    about = {**record.about, "cell_id": cell_id, "description": description, "provenance": provenance}
    path = home.root / FOLDER / f"{cell_id}.parquet"
    replace(record, about=about).save(path)
    return path
