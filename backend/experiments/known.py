"""Cells that are already known, from the run folders and the seed: found, not run."""

from __future__ import annotations

import json
from dataclasses import dataclass
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
    """Return every finished cell of the seed and the run folders, by id; the latest run wins.

    It reads the run folders, not the store: the worker and a second CLI may not open the store.
    """
    found = _seeded()
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


def _seeded() -> dict[str, KnownResult]:
    import pyarrow.parquet as pq

    found: dict[str, KnownResult] = {}
    for path in sorted(SEED.glob("*/measurements.parquet")):
        for row in pq.read_table(path).to_pylist():
            result = found.setdefault(row["cell_id"], KnownResult(row["run_id"], [], None))
            result.measurements.append(Measurement(**{key: row[key] for key in Measurement.__annotations__}))
    return found
