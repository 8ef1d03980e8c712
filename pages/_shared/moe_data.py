"""What the page "Mixture of experts" keeps between draws: sources, records, and what is walked over them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import streamlit as st

from backend.errors import UserError
from backend.experiments.routing_records import FOLDER, RoutingInfo, routing_records
from backend.experiments.sweep_files import sweep_files
from backend.figures.moe import RULES_SHOWN, RoutingSource, Scope, curve_in, routing_sources
from backend.home import SEED
from backend.residency import Eviction, Lifetimes, MissCurve, RoutingRecord, lifetimes_in
from backend.residency.routing_record import Start
from backend.results.coverage import coverage
from backend.results.routing import layer_miss_rates, routing_points, store_speeds
from pages._shared.store import OpenStore
from pages._shared.sweep_offer import Coverage

Stamp = tuple[int, int, int]
_SWEEPS = "moe-"
"""How the names of this page's sweep files begin."""


def known_routings(opened: OpenStore) -> tuple[list[RoutingSource], list[str]]:
    """Return what can be shown, measured models and then imported traces; and which files are no records."""
    folders = (SEED / FOLDER, opened.home.root / FOLDER)
    seed, own = (folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders)
    found: tuple[list[RoutingSource], list[str]] = _sources(
        opened, str(opened.home.root), (opened.store.version, seed, own)
    )
    return found


def record_of(info: RoutingInfo) -> RoutingRecord:
    """Return a record, kept."""
    found: RoutingRecord = _record(str(info.path), info.path.stat().st_mtime_ns)
    return found


def readable(source: RoutingSource) -> tuple[RoutingSource, list[str]]:
    """Return a source without its damaged records, and a sentence for each of them.

    Read are the records that figures are made of: all but those of routings that look at the cache, whose
    stored numbers are shown.
    """
    aware = {point.cell_id for point in source.points if point.slots is not None}
    sound, problems = dict(source.infos), []
    for cell, info in source.infos.items():
        if cell in aware:
            continue
        try:
            record_of(info)
        except UserError as error:
            problems.append(str(error))
            del sound[cell]
    return (replace(source, infos=sound) if problems else source), problems


def curve_of(info: RoutingInfo, scope: Scope, rule: Eviction, start: Start) -> MissCurve:
    """Return a curve of a record, kept: one cache for all layers may take a second to walk.

    Raises:
        UserError: The record does not hold it.
    """
    found: MissCurve = _curve(str(info.path), info.path.stat().st_mtime_ns, scope, rule, start)
    return found


def lifetimes_of(info: RoutingInfo, slots: int, start: Start) -> dict[Eviction, Lifetimes]:
    """Return how long experts stay under each rule shown, kept."""
    found: dict[Eviction, Lifetimes] = _lifetimes(str(info.path), info.path.stat().st_mtime_ns, slots, start)
    return found


def layer_rates(opened: OpenStore, cell_id: str) -> dict[int, float]:
    """Return the stored miss rate of each layer of a cell, kept."""
    found: dict[int, float] = _layer_rates(opened, str(opened.home.root), opened.store.version, cell_id)
    return found


def speeds_of(opened: OpenStore, model_sha256: str) -> pd.DataFrame:
    """Return what was measured of a model with its experts on disk, kept."""
    found: pd.DataFrame = _speeds(opened, str(opened.home.root), opened.store.version)
    return found[found["model_sha256"] == model_sha256]


def coverages(opened: OpenStore, model_sha256: str | None) -> list[Coverage]:
    """Return the sweeps of this page with how many of their cells are stored for a model, kept."""
    found: list[Coverage] = _coverages(opened, str(opened.home.root), opened.store.version, model_sha256)
    return found


def _query_coverages(_opened: OpenStore, root: str, version: int, model_sha256: str | None) -> list[Coverage]:
    return [(file, *coverage(_opened.store, file.sweep, model_sha256)) for file in sweep_files(_SWEEPS)]


def _query_speeds(_opened: OpenStore, root: str, version: int) -> pd.DataFrame:
    return store_speeds(_opened.store)


def _query_sources(_opened: OpenStore, root: str, stamp: Stamp) -> tuple[list[RoutingSource], list[str]]:
    problems: list[str] = []
    infos = routing_records(_opened.home, problems)
    return routing_sources(routing_points(_opened.store), infos), problems


def _load(path: str, changed: int) -> RoutingRecord:
    return RoutingRecord.load(Path(path))


def _make_curve(path: str, changed: int, scope: Scope, rule: Eviction, start: Start) -> MissCurve:
    return curve_in(_record(path, changed), scope, rule, start)


def _walk(path: str, changed: int, slots: int, start: Start) -> dict[Eviction, Lifetimes]:
    record = _record(path, changed)
    return {rule: lifetimes_in(record, slots, rule, start) for rule in RULES_SHOWN}


def _query_layers(_opened: OpenStore, root: str, version: int, cell_id: str) -> dict[int, float]:
    return layer_miss_rates(_opened.store, cell_id)


_sources = st.cache_resource(_query_sources, show_spinner=False, max_entries=4)
_record = st.cache_resource(_load, show_spinner=False, max_entries=64)
_curve = st.cache_resource(_make_curve, show_spinner="Walking the caches …", max_entries=128)
_lifetimes = st.cache_resource(_walk, show_spinner=False, max_entries=256)
_coverages = st.cache_resource(_query_coverages, show_spinner=False, max_entries=8)
_speeds = st.cache_resource(_query_speeds, show_spinner=False, max_entries=4)
_layer_rates = st.cache_resource(_query_layers, show_spinner=False, max_entries=64)
