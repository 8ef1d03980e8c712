"""The command line of experts on devices; :mod:`backend.cli.simulating` takes it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.errors import UserError


def simulate_experts(
    device: str,
    shape: str,
    *,
    slots: int | None,
    dram_gb: float | None,
    miss_rate: float | None,
    trace: Path | None,
    eviction: str,
    warm: bool,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Simulate a mixture of experts at one number of slots.

    Args:
        device: A device profile's name.
        shape: A mixture's name, or a folder with a config.json.
        slots: Slots of each layer, or
        dram_gb: the memory that they have to fit in, with what stays.
        miss_rate: Share of the experts used that are missing, or
        trace: a recorded routing (``route_trace v1``) that tells it.
        eviction: With a trace: lru, lfu, random or belady.
        warm: With a trace: count decoded tokens only.
        options: Settings of the simulator.

    Returns:
        The figures, with what they are of.

    Raises:
        UserError: Something is wrong, or both or neither of two alternatives are given.
    """
    from backend import devices
    from backend.residency import EVICTIONS, miss_curve

    if (slots is None) == (dram_gb is None):
        raise UserError("Give either --slots or --dram-gb: how many experts of each layer are in memory.")
    if (miss_rate is None) == (trace is None):
        raise UserError("Give either --miss-rate (measured or assumed) or --trace (a recorded routing).")
    if eviction not in EVICTIONS:
        raise UserError(f"There is no eviction rule '{eviction}'; known: {', '.join(EVICTIONS)}.")
    settings = devices.ExpertSimulatorSettings.parse(options, "simulator")
    simulator = devices.ExpertSimulator(device, shape, settings)
    fitting = simulator.slots_in(dram_gb) if dram_gb is not None else slots
    assert fitting is not None
    if trace is not None:
        curve = miss_curve(trace, eviction, warm=warm)
        found = simulator.along(curve, fitting)
        misses = f"{trace.name}, {eviction}, recorded with {curve.smallest} experts a token"
    else:
        assert miss_rate is not None
        found, misses = simulator.at(fitting, miss_rate), "given"
    return {
        "device": device,
        "shape": simulator.shape.name,
        "settings": settings.canonical(),
        "how": "simulated",
        "misses": misses,
        "experts": simulator.shape.experts,
        "experts_per_token": simulator.shape.experts_per_token,
        **found.to_json(),
    }
