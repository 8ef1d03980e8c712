"""Time of one slider move and of a curve over DRAM sizes: ``python -m benchmarks.simulator [RUNS]``."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from backend.devices import HitCurve, HookSite, RecordedHook, Simulator, SimulatorSettings, simulator_of
from backend.sparsity import make_policy

DENSITY = 0.5
DEVICE = "snapdragon-8-gen-3"


def recording(layers: int = 30, hidden_size: int = 576, neurons: int = 1536) -> list[RecordedHook]:
    """Return made-up curves of SmolLM2's size, with as many points as recorded ones have."""
    draw = np.random.default_rng(0)
    sites: tuple[tuple[HookSite, int, float], ...] = (
        ("mlp_in", hidden_size, 0.574),
        ("mlp_mid", neurons, 0.351),
    )
    hooks = []
    for layer in range(layers):
        for site, entries, keep in sites:
            counts = draw.gamma(0.3, size=entries)
            rates = np.concatenate([[0.0], np.cumsum(np.sort(counts)[::-1]) / counts.sum()])
            hooks.append(RecordedHook(site, layer, entries, keep * entries, HitCurve.by_capacity(rates)))
    return hooks


def median_ms(call: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for split in ("uniform", "optimised"):
        for overlap in (False, True):
            report(SimulatorSettings(split=split, overlap=overlap), runs)


def report(settings: SimulatorSettings, runs: int) -> None:
    policy, recorded = make_policy("dip", {"density": DENSITY}), recording()
    sizes = np.linspace(2, 7.5, 50)

    def build() -> Simulator:
        return simulator_of(DEVICE, "phi-3-medium", policy, recorded=recorded, settings=settings)

    start = time.perf_counter()
    kept = build()  # as a page keeps it while only DRAM moves
    kept.curve(4.0)  # makes the curves' hulls, once a recording
    first = 1000 * (time.perf_counter() - start)
    dram = median_ms(lambda: kept.curve(4.0).at(0), runs)
    other = median_ms(lambda: build().curve(4.0).at(0), runs)
    curve = median_ms(lambda: build().curve(sizes), runs)
    print(
        f"{settings.split:<10} {'overlapped' if settings.overlap else 'summed':<10} first {first:6.1f} ms   "
        f"DRAM slider {dram:5.2f} ms   other slider {other:5.2f} ms   50 DRAM sizes {curve:6.2f} ms"
    )


if __name__ == "__main__":
    main()
