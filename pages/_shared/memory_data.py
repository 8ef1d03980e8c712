"""What the page "DIP and memory" keeps between draws: sources, recordings, and the headline's table."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from backend.devices import ModelShape, RecordedHook
from backend.experiments.recordings import FOLDER, Recording, RecordingInfo, load_recording, recordings
from backend.figures.headline import HeadlineRow, headline
from backend.figures.memory_scene import Loaders
from backend.figures.memory_sources import Source, sources
from backend.home import SEED
from backend.residency import Eviction
from pages._shared.store import OpenStore

Stamp = tuple[int, int, int]


def stamp(opened: OpenStore) -> Stamp:
    """Return numbers that change when results or recordings do."""
    folders = (SEED / FOLDER, opened.home.root / FOLDER)
    seed, own = (folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders)
    return opened.store.version, seed, own


def known_sources(opened: OpenStore) -> list[Source]:
    """Return what simulations can be fed with."""
    found: list[Source] = _sources(opened, str(opened.home.root), stamp(opened))
    return found


def recording_of(info: RecordingInfo) -> Recording:
    """Return a recording, kept."""
    found: Recording = _recording(info, str(info.path), info.path.stat().st_mtime_ns)
    return found


def hooks_of(info: RecordingInfo, eviction: Eviction) -> list[RecordedHook]:
    """Return a recording's hooks, kept with the hulls of their curves."""
    found: list[RecordedHook] = _hooks(info, str(info.path), info.path.stat().st_mtime_ns, eviction)
    return found


def headline_rows(opened: OpenStore, source: Source, shape: ModelShape) -> list[HeadlineRow]:
    """Return the headline's table of a source and a shape."""
    found: list[HeadlineRow] = _headline(source, shape, source.label, str(opened.home.root), stamp(opened))
    return found


def _query_sources(_opened: OpenStore, root: str, stamp: Stamp) -> list[Source]:
    return sources(_opened.store, recordings(_opened.home))


def _load(_info: RecordingInfo, path: str, changed: int) -> Recording:
    return load_recording(Path(path))


def _make_hooks(_info: RecordingInfo, path: str, changed: int, eviction: Eviction) -> list[RecordedHook]:
    return recording_of(_info).hooks(eviction)


def _compute(_source: Source, shape: ModelShape, label: str, root: str, stamp: Stamp) -> list[HeadlineRow]:
    return headline(_source, shape, recording_of)


# cache_resource hands out the same objects: their curves' hulls, made once, serve every later simulation.
_sources = st.cache_resource(_query_sources, show_spinner=False, max_entries=4)
_recording = st.cache_resource(_load, show_spinner=False, max_entries=16)
_hooks = st.cache_resource(_make_hooks, show_spinner=False, max_entries=32)
_headline = st.cache_resource(_compute, show_spinner="Simulating the headline …", max_entries=16)
LOADERS = Loaders(recording_of, hooks_of)
"""What a scene reads recordings with."""
