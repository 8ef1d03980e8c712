"""Cells that are already known, from the run folders and the seed: found, not run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.experiments.events import Measurement
from backend.home import SEED, Home


@dataclass(frozen=True)
class KnownResult:
    """A cell's result as an earlier run left it."""

    run: str
    measurements: list[Measurement]
    seconds: float | None


def known_results(home: Home) -> dict[str, KnownResult]:
    """Return every finished cell of the seed, imports and run folders, by id; the latest run wins.

    It reads the run folders, not the store: the worker and a second CLI may not open the store.
    """
    found: dict[str, KnownResult] = {}
    for bundles in (SEED, home.imports):
        for bundle in sorted(bundles.glob("*/")):
            if (bundle / "measurements.parquet").is_file():
                found |= _bundled(bundle)
    for events in sorted(home.runs.glob("*/events.jsonl")):
        for line in events.read_bytes().splitlines():
            if b'"kind":"cell_finished"' not in line:
                continue
            event = _parsed(line)
            if event is not None:
                found[event["cell"]] = KnownResult(
                    events.parent.name, event["measurements"], event["seconds"]
                )
    return found


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event: dict[str, Any] = json.loads(line)
    except ValueError:  # a torn last line: its cell is run again
        return None
    return event


def _bundled(bundle: Path) -> dict[str, KnownResult]:
    import pyarrow.parquet as pq

    found = {
        row["cell_id"]: KnownResult(row["run_id"], [], row["seconds"])
        for row in pq.read_table(bundle / "results.parquet").to_pylist()
    }
    for row in pq.read_table(bundle / "measurements.parquet").to_pylist():
        kept: Any = {key: row[key] for key in Measurement.__annotations__}
        found[row["cell_id"]].measurements.append(kept)
    return found
