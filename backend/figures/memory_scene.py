"""From what is asked of the memory simulator to what is shown: the point, its curve, its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from backend.devices import (
    DeviceProfile,
    DramCurve,
    ModelShape,
    RecordedHook,
    Simulation,
    SimulatorSettings,
    footprint,
    simulator_of,
)
from backend.experiments.recordings import Recording, RecordingInfo
from backend.figures.headline import from_recording
from backend.figures.memory import SpeedLine
from backend.figures.memory_sources import CACHE_AWARE, PLAIN, CachePoint, Source, Wanted, target_density
from backend.figures.memory_subjects import (
    GB,
    Subject,
    assumed,
    cache_share_at,
    dram_of,
    from_point,
    wanted_point,
)
from backend.residency import Eviction
from backend.sparsity import make_policy

_SIZES = 80


@dataclass(frozen=True)
class Asked:
    """What is asked of the simulator.

    Attributes:
        device: The device.
        shape: The simulated model.
        dram_gb: DRAM for the model.
        policy: ``dip`` or ``dip_ca``.
        density: Target MLP density.
        gamma: γ of DIP-CA.
        eviction: The caches' rule.
        settings: What the simulator assumes.
        log: Logarithmic axis of speeds.
    """

    device: DeviceProfile
    shape: ModelShape
    dram_gb: float
    policy: str
    density: float
    gamma: float
    eviction: Eviction
    settings: SimulatorSettings
    log: bool

    @property
    def model_gb(self) -> float:
        """The whole model with its KV cache."""
        return footprint(self.shape, self.settings.precision, self.settings.sequence_tokens).total / GB


@dataclass(frozen=True)
class Loaders:
    """How recordings are read; a page keeps them.

    Attributes:
        recording: Reads a recording.
        hooks: Returns a recording's hooks under one rule.
    """

    recording: Callable[[RecordingInfo], Recording]
    hooks: Callable[[RecordingInfo, Eviction], Sequence[RecordedHook]]


@dataclass(frozen=True, eq=False)
class Scene:
    """What is shown for one state of the controls.

    Attributes:
        asked: The controls.
        subject: What is simulated: the stored point nearest to what was asked.
        here: Its simulation at the chosen DRAM.
        dense: Dense streaming over DRAM sizes.
        lines: Speeds over DRAM sizes.
        recording: Plain DIP's recording at the nearest density; beside DIP-CA, nearest to its point's. None
            without any.
        points: DIP-CA's stored points along the cache size.
        wanted: The exact point of DIP-CA that was asked for, None for plain DIP.
    """

    asked: Asked
    subject: Subject
    here: Simulation
    dense: DramCurve
    lines: list[SpeedLine]
    recording: Recording | None
    points: list[CachePoint]
    wanted: Wanted | None

    @property
    def flash_bytes(self) -> float:
        """Bytes that a token reads from Flash."""
        return self._mlp * self.here.mlp_density * (1 - self.here.hit_rate) + self.here.overflow_gb * GB

    @property
    def dense_flash_bytes(self) -> float:
        """The same of the dense model streamed."""
        static = self.here.model_gb * GB - self._mlp
        cached = min(max(self.asked.dram_gb * GB - static, 0.0), self._mlp)
        return self._mlp - cached + max(static - self.asked.dram_gb * GB, 0.0)

    @property
    def _mlp(self) -> float:
        settings = self.asked.settings
        return footprint(self.asked.shape, settings.precision, settings.sequence_tokens).mlp


def scene(asked: Asked, source: Source | None, loaders: Loaders) -> Scene | None:
    """Return what is simulated, None if DIP-CA was asked for and no point of it is stored.

    Raises:
        UserError: The recording has no figures for what was asked.
    """
    size = footprint(asked.shape, asked.settings.precision, asked.settings.sequence_tokens)
    sizes = np.linspace(0.5 * size.static, size.total, _SIZES) / GB
    dense = simulator_of(asked.device, asked.shape, make_policy("dense", {}), settings=asked.settings)
    wanted, point = None, None
    if asked.policy == CACHE_AWARE:
        found = _aware(asked, source)
        if found is None:
            return None
        wanted, point = found
    beside = asked if point is None else _beside(asked, point)
    info = None if source is None else source.recording(beside.density)
    recording = None if info is None else loaders.recording(info)
    subject = _plain(beside, source, loaders)
    lines, points = [_line(subject, beside, sizes)], []
    if source is not None and point is not None:
        points = source.along_cache(point.density, point.gamma, point.eviction)
        lines = [_line_through(points, point, asked), *(lines if recording is not None else [])]
        subject = from_point(point)
    here = subject.simulator(asked.device, asked.shape, asked.settings).curve(asked.dram_gb).at(0)
    return Scene(asked, subject, here, dense.curve(sizes), lines, recording, points, wanted)


def _beside(asked: Asked, point: CachePoint) -> Asked:
    """Return what plain DIP is asked beside a stored point of DIP-CA: an equal density, rule and split."""
    split = asked.settings.model_copy(update={"split": "uniform" if point.is_uniform else "optimised"})
    return replace(asked, density=point.density, eviction=cast(Eviction, point.eviction), settings=split)


def _plain(asked: Asked, source: Source | None, loaders: Loaders) -> Subject:
    info = None if source is None else source.recording(asked.density)
    if source is None or info is None:
        return assumed(make_policy(PLAIN, {"density": asked.density}))
    return from_recording(info, loaders.hooks(info, asked.eviction), source.loss(info), asked.eviction)


def _aware(asked: Asked, source: Source | None) -> tuple[Wanted, CachePoint] | None:
    if source is None or not source.points:
        return None
    wanted = wanted_point(
        source, asked.device, asked.shape, asked.settings, asked.dram_gb,
        density=asked.density, gamma=asked.gamma, eviction=asked.eviction,
    )  # fmt: skip
    point = source.nearest(wanted)
    if point is not None and point.is_uniform and asked.settings.split == "optimised":
        # No point with that split is stored: the nearest one to the uniform split, as the page says.
        share = cache_share_at(asked.dram_gb, asked.shape, asked.settings)
        point = source.nearest(replace(wanted, input_share=share, neuron_share=share))
    return None if point is None else (wanted, point)


def _line(subject: Subject, asked: Asked, sizes: np.ndarray) -> SpeedLine:
    curve = subject.simulator(asked.device, asked.shape, asked.settings).curve(sizes)
    return SpeedLine.of(PLAIN, subject.label, curve, subject.mlp_density)


def _line_through(points: list[CachePoint], near: CachePoint, asked: Asked) -> SpeedLine:
    """Return DIP-CA's speeds at the DRAM in which each stored point's caches just fit."""
    sizes = [dram_of(point, asked.shape, asked.settings) for point in points]
    speeds = [
        from_point(point).simulator(asked.device, asked.shape, asked.settings).curve(size).at(0).tokens_per_s
        for point, size in zip(points, sizes, strict=True)
    ]
    label = f"DIP-CA, density {near.density:g}, γ {near.gamma:g}"
    return SpeedLine(CACHE_AWARE, label, sizes, speeds, "line", near.mlp_density)


def is_exact(shown: Scene) -> bool:
    """Tell whether what is simulated is what was asked for."""
    asked, point = shown.asked, shown.subject.point
    if point is not None and shown.wanted is not None:
        return shown.wanted.distance(point) < 0.01
    if shown.recording is None:
        return False
    return abs(target_density(shown.recording.info) - asked.density) < 0.005
