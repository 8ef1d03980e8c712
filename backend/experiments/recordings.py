"""Recordings: what a policy's masks would hit in caches of every size, reduced from its residency trace.

One Parquet file a recording, named by its cell: a row for each layer, site, eviction rule and start, with
the histogram that gives the misses of every cache size. The trace itself (130 MB for 16k tokens) is never
kept. Masks that look at the cache (DIP-CA) are no subject of a recording: they differ with its size.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from backend.devices import HookSite, RecordedHook
from backend.errors import UserError
from backend.home import SEED, Home
from backend.residency import Eviction, MissCurve, total

Start = Literal["cold", "warm"]
Key = tuple[int, HookSite, Eviction, Start]
RULES: tuple[Eviction, ...] = ("lru", "lfu", "belady")
FOLDER = "recordings"
_METADATA = b"recording"


@dataclass(frozen=True)
class RecordingInfo:
    """What a recording is of.

    Attributes:
        path: Its file.
        cell_id: The cell of the same model, policy, text and windows.
        description: That cell, as ``Cell.description`` gives it.
        mlp_density: Measured share of MLP weights read.
        model_density: Measured share of all weights read.
        provenance: With what it was made.
    """

    path: Path
    cell_id: str
    description: dict[str, Any]
    mlp_density: float
    model_density: float
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """A recording with its curves.

    Attributes:
        info: What it is of.
        curves: Misses of every cache size by (layer, site, rule, start), sequences added up.
    """

    info: RecordingInfo
    curves: dict[Key, MissCurve]

    def hooks(self, eviction: Eviction) -> list[RecordedHook]:
        """Return every hook under one rule, as the simulator takes them.

        Raises:
            UserError: The rule was not recorded.
        """
        places = [
            (layer, site) for layer, site, rule, start in self.curves if (rule, start) == (eviction, "cold")
        ]
        if not places:
            raise UserError(f"The recording {self.info.cell_id} has no figures for '{eviction}'.")
        return [
            RecordedHook.from_miss_curves(
                site,
                layer,
                self.curves[layer, site, eviction, "cold"],
                self.curves.get((layer, site, eviction, "warm")),
            )
            for layer, site in places
        ]

    def curve(self, site: HookSite, eviction: Eviction, start: Start = "cold") -> MissCurve:
        """Return the curve of a site, all layers together, each with a cache of its own."""
        of_layers = [curve for key, curve in self.curves.items() if key[1:] == (site, eviction, start)]
        if not of_layers:
            raise UserError(f"The recording {self.info.cell_id} has no {start} '{eviction}' curve of {site}.")
        return total(of_layers)

    @cached_property
    def sites(self) -> list[HookSite]:
        """The sites at which the policy masks."""
        return list(dict.fromkeys(site for _, site, _, _ in self.curves))


def recordings(home: Home) -> list[RecordingInfo]:
    """Return the recordings of the seed and this home; the home's replaces the seed's of the same cell."""
    found: dict[str, RecordingInfo] = {}
    for folder in (SEED / FOLDER, home.root / FOLDER):
        for path in sorted(folder.glob("*.parquet")):
            info = _info(path)
            found[info.cell_id] = info
    return list(found.values())


def load_recording(recording: RecordingInfo | Path) -> Recording:
    """Read a recording.

    Raises:
        UserError: The file is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    info = recording if isinstance(recording, RecordingInfo) else _info(recording)
    try:
        rows = pq.read_table(info.path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{info.path} cannot be read as a recording.") from error
    return Recording(
        info,
        {
            (row["layer"], row["site"], row["eviction"], row["start"]): MissCurve.from_json(row)
            for row in rows
        },
    )


def save_recording(home: Home, recording: Recording) -> Path:
    """Write a recording into the home, whole or not at all.

    Raises:
        UserError: The disk is full or the home cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = defaultdict(list)
    for (layer, site, eviction, start), curve in recording.curves.items():
        named = {"layer": layer, "site": site, "eviction": eviction, "start": start, **curve.as_json()}
        for name, value in named.items():
            columns[name].append(value)
    info = recording.info
    said = {
        "cell_id": info.cell_id,
        "description": info.description,
        "mlp_density": info.mlp_density,
        "model_density": info.model_density,
        "provenance": info.provenance,
    }
    table = pa.table(dict(columns)).replace_schema_metadata({_METADATA: json.dumps(said)})
    path = home.root / FOLDER / f"{info.cell_id}.parquet"
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(exist_ok=True)
        pq.write_table(table, part, compression="zstd", compression_level=19)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"The recording cannot be written to {path.parent} ({error.strerror}).") from error
    return path


def _info(path: Path) -> RecordingInfo:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        said = json.loads(pq.read_schema(path).metadata[_METADATA])
    except (OSError, pa.ArrowException, KeyError, TypeError) as error:
        raise UserError(f"{path} is no recording of Sparsity Lens; `record` makes one.") from error
    return RecordingInfo(path, **said)
