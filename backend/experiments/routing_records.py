"""Routing records as they are kept: a file for each measured cell or imported trace, in seed and home."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.home import SEED, Home
from backend.registry import did_you_mean
from backend.residency import RoutingRecord, as_record, parse_route_trace
from backend.residency.routing_file import read_about

FOLDER = "routing"
_TRACE = "trace-"


@dataclass(frozen=True)
class RoutingInfo:
    """What a kept routing record is of.

    Attributes:
        path: Its file.
        cell_id: The cell that measured it, or the id of an imported trace.
        description: That cell, as ``Cell.description`` gives it; of an imported trace its file's name.
        provenance: With what it was made.
        experts: N, of the layer with most experts.
    """

    path: Path
    cell_id: str
    description: dict[str, Any]
    provenance: dict[str, Any]
    experts: int

    @property
    def imported(self) -> str:
        """The name of the file that was imported, "" for a measured record."""
        return str(self.description.get("imported", ""))


def routing_records(home: Home, problems: list[str] | None = None) -> list[RoutingInfo]:
    """Return the records of the seed and this home; the home's replaces the seed's of the same cell.

    Args:
        home: The home.
        problems: Takes a sentence for each file that is no record; without it the first one is raised.

    Raises:
        UserError: A file in their folders is no record.
    """
    found: dict[str, RoutingInfo] = {}
    for folder in (SEED / FOLDER, home.root / FOLDER):
        for path in sorted(folder.glob("*.parquet")):
            try:
                info = _info(path)
            except UserError as error:
                if problems is None:
                    raise
                problems.append(str(error))
                continue
            found[info.cell_id] = info
    return list(found.values())


def _info(path: Path) -> RoutingInfo:
    said = read_about(path)
    try:
        about = said["about"]
        return RoutingInfo(
            path, about["cell_id"], about["description"], about["provenance"], int(said["experts"])
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} does not say what it is the routing of; remove it, and measure or import it again."
        ) from error


def find_routing(home: Home, name: str) -> RoutingInfo:
    """Return the record of a cell's id or of an imported trace's name; the beginning of an id will do.

    Raises:
        UserError: There is none, or more than one.
    """
    known = routing_records(home)
    exact = [info for info in known if name in (info.cell_id, info.imported)]
    found = exact or [info for info in known if info.cell_id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{len(found)} routings begin with '{name}'; write more of the id.")
    names = [info.imported or info.cell_id for info in known]
    hint = did_you_mean(name, names) if names else "none is kept: measure one, or import a trace."
    raise UserError(f"There is no routing '{name}'; {hint}")


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


def import_trace(home: Home, name: str, content: bytes) -> str:
    """Keep a ``route_trace v1`` file in the home as a record; one that is there already is found.

    Args:
        home: Where to.
        name: What the file is called.
        content: Its bytes.

    Returns:
        The record's id, made of the content.

    Raises:
        UserError: It is no trace, too large, or the home cannot be written.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    id = f"{_TRACE}{sha256[:12]}"
    if not (home.root / FOLDER / f"{id}.parquet").exists():
        record = as_record(parse_route_trace(name, content))
        save_routing_record(home, record, id, {"imported": name[:80], "sha256": sha256}, {})
    return id


def remove_imported(info: RoutingInfo) -> None:
    """Remove an imported trace; what was measured stays.

    Raises:
        UserError: It was measured, or cannot be removed.
    """
    if not info.imported:
        raise UserError(f"The routing {info.cell_id} was measured, not imported, so it stays.")
    try:
        info.path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{info.path} cannot be removed ({error.strerror}).") from error
