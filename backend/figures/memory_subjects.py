"""What is simulated: a policy with hit rates that were recorded, measured at one point, or assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.devices import (
    DeviceProfile,
    HitCurve,
    HitLaw,
    HookSite,
    ModelShape,
    RecordedHook,
    Simulator,
    SimulatorSettings,
    footprint,
    policy_keeps,
    simulator_of,
)
from backend.figures.memory_sources import CACHE_AWARE, CachePoint, Quality, Source, Wanted
from backend.sparsity import Policy, make_policy

GB = 1e9
_COLUMNS = 1_000


@dataclass(frozen=True, eq=False)
class Subject:
    """A policy as the simulator takes it.

    Attributes:
        label: Its name for people.
        policy: The policy.
        mlp_density: Measured density; the target where nothing was measured.
        quality: What it lost, None if that was not measured.
        recorded: Its hooks' hit rates by cache size; None to use ``hits``.
        hits: Each site's hit rate, or a law.
        point: The stored point of DIP-CA it is, if it is one.
    """

    label: str
    policy: Policy
    mlp_density: float
    quality: Quality | None = None
    recorded: Sequence[RecordedHook] | None = None
    hits: HitLaw | dict[HookSite, float] = "uniform"
    point: CachePoint | None = None

    def simulator(self, device: DeviceProfile, shape: ModelShape, settings: SimulatorSettings) -> Simulator:
        """Return the simulator; a point of DIP-CA splits DRAM as it did when it was measured."""
        if self.point is not None:
            share = (
                2 * self.point.input_share / (3 * self.point.cache_share) if self.point.cache_share else 0.5
            )
            settings = settings.model_copy(update={"split": "manual", "input_share": share})
        return simulator_of(
            device, shape, self.policy, recorded=self.recorded, hits=self.hits, settings=settings
        )


def from_point(point: CachePoint) -> Subject:
    """Return a stored point of DIP-CA."""
    return Subject(
        label=f"DIP-CA, density {point.density:g}, γ {point.gamma:g}, {caches_title(point)}",
        policy=point.policy,
        mlp_density=point.mlp_density,
        quality=point.quality,
        hits=point.hits,
        point=point,
    )


def caches_title(point: CachePoint | Wanted) -> str:
    """Return a point's caches for people: one share of the columns, or the inputs' and the neurons'."""
    inputs, neurons = f"{point.input_share:.0%}", f"{point.neuron_share:.0%}"
    return f"caches {inputs}" if inputs == neurons else f"caches {inputs} and {neurons}"


def assumed(policy: Policy) -> Subject:
    """Return a policy of which nothing was recorded: every column is as likely as any other."""
    density = policy.expected_density() or 1.0
    return Subject(f"{policy.title}, density {density:g}, hit rates assumed", policy, density)


def dram_of(point: CachePoint, shape: ModelShape, settings: SimulatorSettings) -> float:
    """Return the DRAM in GB in which a point's caches just fit."""
    size = footprint(shape, settings.precision, settings.sequence_tokens)
    return (size.static + point.cache_share * size.mlp) / GB


def cache_share_at(dram_gb: float, shape: ModelShape, settings: SimulatorSettings) -> float:
    """Return the share of the MLPs that fits into DRAM beside what has to be resident."""
    size = footprint(shape, settings.precision, settings.sequence_tokens)
    return float(np.clip((dram_gb * GB - size.static) / size.mlp, 0, 1))


def wanted_point(
    source: Source,
    device: DeviceProfile,
    shape: ModelShape,
    settings: SimulatorSettings,
    dram_gb: float,
    *,
    density: float,
    gamma: float,
    eviction: str,
) -> Wanted:
    """Return the point of DIP-CA that is exactly what the controls ask for.

    With the uniform split both sites' caches hold the same share of their columns. The better split is found
    on the hit rates of the stored points along the cache size, drawn straight between them.
    """
    share = cache_share_at(dram_gb, shape, settings)
    wanted = Wanted(density, gamma, share, share, eviction)
    near = source.nearest(wanted) if settings.split == "optimised" else None
    along = [] if near is None else source.along_cache(near.density, near.gamma, near.eviction)
    if len(along) < 2:
        return wanted
    policy = make_policy(CACHE_AWARE, {"density": along[0].density})
    simulator = simulator_of(
        device, shape, policy, recorded=_hooks_along(policy, along), settings=_cold(settings)
    )
    found = simulator.curve(dram_gb).at(0).cached_share_by_site
    return Wanted(density, gamma, found["mlp_in"], found["mlp_mid"], eviction)


def _hooks_along(policy: Policy, points: Sequence[CachePoint]) -> list[RecordedHook]:
    """Return hooks of one layer whose hit rates run through stored points."""
    shares = [point.input_share for point in points]
    keeps = policy_keeps(policy, 1)
    hooks = []
    for site in ("mlp_in", "mlp_mid"):
        kept = float(np.mean(keeps[site]))
        curve = HitCurve.from_points(shares, [point.hits[site] for point in points])
        hooks.append(RecordedHook(site, 0, _COLUMNS, kept * _COLUMNS, curve))
    return hooks


def _cold(settings: SimulatorSettings) -> SimulatorSettings:
    """Return settings with empty caches at the start: how DIP-CA's points were measured."""
    return settings.model_copy(update={"start": "cold"})
