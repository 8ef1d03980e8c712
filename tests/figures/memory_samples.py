"""Made-up recordings and points of DIP-CA; every name says that they are test data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from backend.devices import HookSite
from backend.experiments.cells import Cell
from backend.experiments.recordings import RULES, Key, Recording, RecordingInfo, save_recording
from backend.home import Home
from backend.residency import MissCurve
from backend.sparsity import make_policy
from backend.sparsity.dip import split_density
from tests.figures.figures_samples import WINDOW, WINDOWS, cell, finished, write_run

MODEL, TEXT = "test-memory-model", "test-memory-text"
SOURCE = f"{MODEL} · {TEXT} · windows of {WINDOW}"
DENSITIES = (0.5, 0.7, 0.9)
GAMMAS, CACHES = (0.3, 0.6), (0.2, 0.4, 0.6)
LAYERS = 3
SIZES: dict[HookSite, int] = {"mlp_in": 24, "mlp_mid": 48}
BEND = {"lru": 1.0, "lfu": 0.9, "belady": 0.6}
RUN = "20260101-001000-test-memory-0000"


def recording(density: float) -> Recording:
    """Return a recording whose hit rate is the cached share to some power: the same in every layer."""
    keeps = dict(zip(SIZES, split_density(density), strict=True))
    curves: dict[Key, MissCurve] = {}
    for layer in range(LAYERS):
        for site, size in SIZES.items():
            accesses = round(keeps[site] * size) * WINDOWS * WINDOW
            for rule in RULES:
                rates = np.linspace(0, 1, size + 1) ** BEND[rule]
                hits = np.round(rates * (accesses - size)).astype(np.int64)
                cold = MissCurve(hits, accesses, size, WINDOWS * WINDOW)
                curves[layer, site, rule, "cold"] = cold
                warm = np.round(rates * accesses).astype(np.int64)
                curves[layer, site, rule, "warm"] = MissCurve(warm, accesses, 0, WINDOWS * WINDOW)
    made = cell(make_policy("dip", {"density": density}), MODEL, TEXT)
    info = RecordingInfo(Path(), made.id, made.description(), density, 0.4 + 0.6 * density, {})
    return Recording(info, curves)


def aware_cell(density: float, gamma: float, share: float, **more: Any) -> Cell:
    """Return a cell of DIP-CA."""
    settings = {"density": density, "gamma": gamma, "cache_share": share, **more}
    return cell(make_policy("dip_ca", settings), MODEL, TEXT)


def aware_event(made: Cell) -> dict[str, Any]:
    """Return the ``cell_finished`` event of DIP-CA; the smaller γ and the larger the cache, the more hits."""
    event = finished(made)
    policy: Any = made.policy
    cached = {
        "mlp_in": policy.input_cache or policy.cache_share,
        "mlp_mid": policy.neuron_cache or policy.cache_share,
    }
    for site, share in cached.items():
        hits = min(1.0, share * (2 - policy.gamma))
        event["measurements"].append(_measurement(f"hit_rate_{site}", hits, "share of columns chosen"))
    return event


def write_memory(home: Home) -> Home:
    """Add recordings and a grid of DIP-CA to a home; return the home."""
    plain = [cell(make_policy("dense", {}), MODEL, TEXT)]
    plain += [cell(make_policy("dip", {"density": density}), MODEL, TEXT) for density in DENSITIES]
    grid = [aware_cell(d, g, c) for d in (0.5, 0.9) for g in GAMMAS for c in CACHES]
    write_run(home, plain, RUN, more=[aware_event(made) for made in grid])
    for density in DENSITIES:
        save_recording(home, recording(density))
    return home


def _measurement(metric: str, value: float, unit: str) -> dict[str, Any]:
    return {"metric": metric, "value": value, "stderr": None, "n": None, "unit": unit, "how": "measured"}
