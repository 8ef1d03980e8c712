"""The abstract's claim of arXiv 2412.01380, redone: memory saved and speed won within a budget of quality.

Phi-3-Medium with 46 % less memory and 40 % more tokens/s at less than 0.1 perplexity lost, against streaming
the dense model from Flash. Densities, hit rates and losses are measured on a model that ran; speed is
simulated for a shape, in paper mode.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backend.devices import (
    DEVICES,
    SHAPES,
    DeviceProfile,
    ModelShape,
    RecordedHook,
    Simulation,
    SimulatorSettings,
    footprint,
)
from backend.experiments.recordings import Recording, RecordingInfo
from backend.figures.memory_sources import CACHE_AWARE, PLAIN, Quality, Source, target_density
from backend.figures.memory_subjects import GB, Subject, dram_of, from_point
from backend.residency import Eviction
from backend.sparsity import make_policy

Split = Literal["uniform", "optimised"]
PAPER_DEVICE = "apple-a18"
PAPER_SHAPE = "phi-3-medium"
PAPER_DRAM_GB = 4.0
PAPER_SPEEDUP, PAPER_MEMORY_SAVED = 0.40, 0.46
RULES: tuple[Eviction, ...] = ("lru", "lfu")
"""The rules that a device can run; Belady's needs the future."""

_SPLITS: tuple[Split, ...] = ("uniform", "optimised")
_ROOM = 0.002
"""How much larger than DRAM a point's caches may be, in shares of the MLP: 39 % stand for 39.07 %."""


@dataclass(frozen=True)
class Budget:
    """How much quality may be lost.

    Attributes:
        label: Its name for people.
        holds: Tells whether a stored point keeps to it.
    """

    label: str
    holds: Callable[[Quality], bool]


BUDGETS = (
    Budget("< 0.1 perplexity lost", lambda quality: quality.rise < 0.1),
    Budget("ΔNLL ≤ 0.025", lambda quality: quality.delta_nll.value <= 0.025),
)
"""The paper's budget, and what it is for Phi-3-Medium's perplexity of about 4."""


@dataclass(frozen=True)
class HeadlineRow:
    """The fastest measured point within one budget, for one kind of policy, split and I/O mode.

    Attributes:
        budget: The budget.
        policy: ``dip`` or ``dip_ca``.
        split: How caches share DRAM.
        overlap: Reads from Flash run beside reads from DRAM.
        subject: The point; None if none was measured within the budget and this DRAM.
        result: Its simulation.
        least_dram_gb: The least DRAM at which it, or another point within the budget, is 40 % faster than the
            dense model streamed through the same DRAM; None if there is none.
    """

    budget: str
    policy: str
    split: Split
    overlap: bool
    subject: Subject | None
    result: Simulation | None
    least_dram_gb: float | None


def paper_dram_gb(shape: ModelShape, settings: SimulatorSettings | None = None) -> float:
    """Return 4 GB for Phi-3-Medium, the same share of any other model."""
    settings = settings or SimulatorSettings.paper()

    def total(of: ModelShape) -> float:
        return footprint(of, settings.precision, settings.sequence_tokens).total

    return PAPER_DRAM_GB * total(shape) / total(SHAPES[PAPER_SHAPE])


def headline(
    source: Source,
    shape: ModelShape,
    load: Callable[[RecordingInfo], Recording],
    *,
    device: DeviceProfile | None = None,
    dram_gb: float | None = None,
) -> list[HeadlineRow]:
    """Return the table: budgets × plain and cache-aware × splits × I/O modes.

    Args:
        source: Where densities, hit rates and losses were measured.
        shape: The simulated model.
        load: Reads a recording (a page keeps them).
        device: By default the paper's.
        dram_gb: By default the paper's 4 GB, the same share of another model.
    """
    profile = device or DEVICES[PAPER_DEVICE]
    dram = dram_gb or paper_dram_gb(shape)
    plain = list(_plain(source, load))
    rows = []
    for budget, split, overlap in itertools.product(BUDGETS, _SPLITS, (False, True)):
        settings = SimulatorSettings.paper(split=split, overlap=overlap)
        within = [s for s in plain if s.quality is not None and budget.holds(s.quality)]
        rows.append(_row(budget, PLAIN, split, overlap, within, within, profile, shape, dram, settings))
        aware = [p for p in source.points if budget.holds(p.quality) and p.is_uniform == (split == "uniform")]
        size = footprint(shape, settings.precision, settings.sequence_tokens)
        fitting = [p for p in aware if dram_of(p, shape, settings) <= dram + _ROOM * size.mlp / GB]
        here, anywhere = [from_point(p) for p in fitting], [from_point(p) for p in aware]
        rows.append(_row(budget, CACHE_AWARE, split, overlap, here, anywhere, profile, shape, dram, settings))
    return sorted(
        rows,
        key=lambda row: (row.budget != BUDGETS[0].label, row.policy, row.overlap, row.split == "optimised"),
    )


def headline_density(source: Source) -> float | None:
    """Return the lowest recorded density of plain DIP at ΔNLL ≤ 0.025, None if none was measured."""
    within = [i for i in source.recordings if (q := source.loss(i)) is not None and BUDGETS[1].holds(q)]
    return min((target_density(info) for info in within), default=None)


def _row(
    budget: Budget,
    policy: str,
    split: Split,
    overlap: bool,
    here: Sequence[Subject],
    anywhere: Sequence[Subject],
    device: DeviceProfile,
    shape: ModelShape,
    dram_gb: float,
    settings: SimulatorSettings,
) -> HeadlineRow:
    simulated = [
        (subject, subject.simulator(device, shape, settings).curve(dram_gb).at(0)) for subject in here
    ]
    subject, result = max(simulated, key=lambda pair: pair[1].tokens_per_s, default=(None, None))
    least = [found for s in anywhere if (found := _least_dram(s, device, shape, settings)) is not None]
    return HeadlineRow(budget.label, policy, split, overlap, subject, result, min(least, default=None))


def _least_dram(
    subject: Subject, device: DeviceProfile, shape: ModelShape, settings: SimulatorSettings
) -> float | None:
    size = footprint(shape, settings.precision, settings.sequence_tokens)
    if subject.point is not None:
        sizes = np.array([dram_of(subject.point, shape, settings)])
    else:
        sizes = np.linspace(size.static, size.total, 56) / GB
    faster = subject.simulator(device, shape, settings).curve(sizes).speedup >= 1 + PAPER_SPEEDUP
    return float(sizes[np.argmax(faster)]) if faster.any() else None


def _plain(source: Source, load: Callable[[RecordingInfo], Recording]) -> Iterator[Subject]:
    """Yield plain DIP within any budget, under each rule that a device can run."""
    for info in source.recordings:
        quality = source.loss(info)
        if quality is None or not any(budget.holds(quality) for budget in BUDGETS):
            continue
        for rule in RULES:
            yield from_recording(info, load(info).hooks(rule), quality, rule)


def from_recording(
    info: RecordingInfo, hooks: Sequence[RecordedHook], quality: Quality | None, eviction: str
) -> Subject:
    """Return plain DIP as it was recorded."""
    policy = make_policy(PLAIN, info.description["settings"])
    rule = {"lru": "LRU", "lfu": "LFU", "belady": "Belady"}[eviction]
    label = f"DIP, density {target_density(info):g}, {rule}"
    return Subject(label, policy, info.mlp_density, quality, hooks)
