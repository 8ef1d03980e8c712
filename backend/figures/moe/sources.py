"""Whose routing the page shows: a model that was measured on a text, or an imported trace."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from backend.experiments.routing_records import RoutingInfo
from backend.figures.moe.grid import ORIGINAL, GridPoint, grid_points
from backend.figures.moe.origin import origin_of
from backend.figures.moe.policies import CACHE_SETTINGS
from backend.figures.spec import Provenance
from backend.models.catalog import CATALOG, DerivedSource
from backend.residency.routing_record import Start


@dataclass(frozen=True)
class RoutingSource:
    """One model, text and evaluation; or one imported trace.

    Attributes:
        label: Its name for people, each once.
        model: The model's name; of a trace what its file says.
        evaluation: How it was measured, as the cells say; empty for a trace.
        infos: Its routing records by cell; of a trace a single one.
        points: Its measured routings; none for a trace.
        text: The text's name; "" for a trace.
    """

    label: str
    model: str
    evaluation: dict[str, Any] = field(default_factory=dict)
    infos: dict[str, RoutingInfo] = field(default_factory=dict)
    points: tuple[GridPoint, ...] = ()
    text: str = ""

    @property
    def imported(self) -> bool:
        """Whether it is an imported trace: without λ, without quality."""
        return any(info.imported for info in self.infos.values())

    @property
    def experts(self) -> int:
        """N, of the layer with most experts; 0 if no record says it."""
        return max((info.experts for info in self.infos.values()), default=0)

    @property
    def start(self) -> Start:
        """Whether its quality was measured with caches that begin empty, or that the prompt filled."""
        return "warm" if self.evaluation.get("start") == "warm" else "cold"

    @property
    def original(self) -> RoutingInfo | None:
        """The record of the model's own routing, None if only others were recorded."""
        if self.imported:
            return next(iter(self.infos.values()))
        own = [info for info in self.infos.values() if info.description["policy"] == ORIGINAL]
        return own[0] if own else None

    @property
    def original_point(self) -> GridPoint | None:
        """What the original routing measured, None if it was not."""
        return next((point for point in self.points if point.policy == ORIGINAL), None)

    def origin(self, info: RoutingInfo, points: Iterable[GridPoint] = ()) -> Provenance:
        """Return where the numbers of one of its records come from, and of points beside it."""
        own = [point for point in self.points if point.cell_id == info.cell_id]
        return origin_of(info, [*own, *points])

    def of(self, policy: str) -> list[GridPoint]:
        """Return a policy's points."""
        return [point for point in self.points if point.policy == policy]

    @property
    def policies(self) -> list[str]:
        """Every policy that was measured, each once, the original first."""
        names = dict.fromkeys(point.policy for point in self.points)
        return sorted(names, key=lambda name: (name != ORIGINAL,))


def model_label(name: str) -> str:
    """Return a model's name, and what it was made from if it was made from another one."""
    source = CATALOG[name].source if name in CATALOG else None
    if not isinstance(source, DerivedSource):
        return name
    return f"{name} (derived from {CATALOG[source.base].title.removesuffix('-Instruct')})"


def routing_sources(rows: pd.DataFrame, infos: Iterable[RoutingInfo]) -> list[RoutingSource]:
    """Return what can be shown: measured models first, those with most points first; then imported traces.

    Args:
        rows: What is stored, as :func:`backend.results.routing.routing_points` returns it.
        infos: The routing records that are kept.
    """
    measured: dict[tuple[Any, ...], RoutingSource] = {}
    traces: list[RoutingSource] = []
    cells = {str(row["cell_id"]): row for _, row in rows.iterrows()}
    for info in infos:
        if info.imported:
            traces.append(RoutingSource(f"{info.imported} (imported trace)", "", {}, {info.cell_id: info}))
            continue
        said = info.description
        key = _key(said["model_sha256"], said["text_sha256"], said["evaluation"])
        found = measured.setdefault(key, _source(said["model"], said["text"], said["evaluation"]))
        found.infos[info.cell_id] = info
    grouped: dict[tuple[Any, ...], list[str]] = {}
    for cell, row in cells.items():
        evaluation = json.loads(row["evaluation"])
        key = _key(row["model_sha256"], row["text_sha256"], evaluation)
        measured.setdefault(key, _source(row["model"], row["text"], evaluation))
        grouped.setdefault(key, []).append(cell)
    made = [
        replace(source, points=grid_points(rows[rows["cell_id"].isin(grouped.get(key, []))], source.experts))
        for key, source in measured.items()
    ]
    made.sort(key=lambda source: (-len(source.points), source.label))
    return _apart([*made, *sorted(traces, key=lambda source: source.label)])


def _key(model_sha256: str, text_sha256: str, evaluation: dict[str, Any]) -> tuple[Any, ...]:
    """Return what has to agree: all but the cache, since records hold the misses of every cache."""
    said = {name: value for name, value in evaluation.items() if name not in CACHE_SETTINGS}
    return model_sha256, text_sha256, json.dumps(said, sort_keys=True)


def _source(model: str, text: str, evaluation: dict[str, Any]) -> RoutingSource:
    asked = f"{int(evaluation.get('tokens', 0)):,} tokens in windows of {int(evaluation.get('window', 0)):,}"
    dtype, prompt = evaluation.get("dtype", "float32"), evaluation.get("prompt")
    label = f"{model_label(model)} · {text} · {asked}" + ("" if dtype == "float32" else f" · {dtype}")
    if prompt is not None:
        label += f" · prompt of {prompt}, {evaluation.get('start', 'cold')}"
    return RoutingSource(label, model, evaluation, {}, (), text)


def _apart(sources: list[RoutingSource]) -> list[RoutingSource]:
    """Give sources of the same label different ones: by the record, or by a number."""
    seen = Counter(source.label for source in sources)
    made: list[RoutingSource] = []
    count: Counter[str] = Counter()
    for source in sources:
        if seen[source.label] > 1:
            count[source.label] += 1
            source = replace(source, label=f"{source.label} #{count[source.label]}")
        made.append(source)
    return made
