"""Bytes a second on one device under given settings, and how times of DRAM and Flash add up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.devices.flash import GB
from backend.devices.hit_curves import Floats
from backend.devices.options import SimulatorSettings
from backend.devices.profiles import DeviceProfile
from backend.devices.split import HookArrays


@dataclass(frozen=True, eq=False)
class Rates:
    """What the times are made from.

    Attributes:
        dram: DRAM, in bytes a second.
        flash: Large reads from Flash, in bytes a second.
        hooks: Each hook's misses, by the size of one read, in bytes a second. # [H]
        latency_s: Wait of one hook's reads for their first byte, in seconds.
        overlap: Whether Flash is read beside DRAM.
    """

    dram: float
    flash: float
    hooks: Floats
    latency_s: float
    overlap: bool

    @classmethod
    def of(cls, device: DeviceProfile, settings: SimulatorSettings, hooks: HookArrays) -> Rates:
        """Return the rates of ``device``; settings may replace its bandwidths and its overlap."""
        device = device.with_bandwidths(settings.dram_gb_per_s, settings.flash_gb_per_s)
        flash = device.flash
        peak = flash.peak_gb_per_s * GB
        reads = hooks.entry_bytes if settings.bundled else hooks.linear_bytes
        by_size = np.array([flash.gb_per_s(size) * GB for size in reads.tolist()], dtype=np.float64)
        return cls(
            dram=device.dram_gb_per_s * GB,
            flash=peak,
            hooks=by_size if settings.flash_by_read_size else np.full(len(reads), peak),
            latency_s=flash.latency_us * 1e-6 if settings.flash_latency else 0.0,
            overlap=device.io_overlap if settings.overlap is None else settings.overlap,
        )

    def time(self, dram: Floats, flash: Floats) -> tuple[Floats, Floats]:
        """Return (time of DRAM, time that Flash adds) in seconds, from both times alone. # [...] each

        Flash adds its own time or, when they overlap, what it takes longer than DRAM, so that the sum is the
        longer of the two.
        """
        return dram, np.maximum(flash - dram, 0.0) if self.overlap else flash
