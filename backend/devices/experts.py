"""The time of a token whose experts stream from Flash into a cache: simulated, memory-bound, batch one.

    t = dense/BW_DRAM + K · bytes/BW_DRAM + misses · (bytes/BW_Flash + seek)

(``specs/moe.md``.) Where reads from Flash run beside the rest (prefetch), the longer of the two counts: a
bound, since a router knows a layer's experts only when it gets there.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.devices.flash import GB
from backend.devices.profiles import DeviceProfile


@dataclass(frozen=True)
class ExpertTime:
    """Where the time of one token goes, on average.

    Attributes:
        dense_s: What every token reads (attention, head, shared experts), from DRAM.
        experts_s: The experts that it uses, from DRAM.
        misses_s: Those of them that are not in the cache, from Flash.
        overlap: Flash is read beside DRAM: the longer one counts.
    """

    dense_s: float
    experts_s: float
    misses_s: float
    overlap: bool = False

    @property
    def seconds(self) -> float:
        """The whole."""
        resident = self.dense_s + self.experts_s
        return max(resident, self.misses_s) if self.overlap else resident + self.misses_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second."""
        return 1 / self.seconds


def expert_time(
    device: DeviceProfile,
    *,
    dense_bytes: float,
    used_bytes: float,
    missed_bytes: float,
    misses: float,
    overlap: bool = False,
    seeks: float | None = None,
) -> ExpertTime:
    """Return the time of a token.

    Args:
        device: Bandwidths, and Flash's by the size of one read: an expert is read in one piece.
        dense_bytes: Bytes of what every token reads.
        used_bytes: Bytes of the experts that a token uses, over all layers.
        missed_bytes: Bytes of those that it loads.
        misses: How many it loads.
        overlap: Flash is read beside DRAM.
        seeks: How often it waits for a first byte; None: once for each miss.
    """
    dram = device.dram_gb_per_s * GB
    flash_s = 0.0
    if misses > 0:
        rate = device.flash.gb_per_s(missed_bytes / misses) * GB
        waits = misses if seeks is None else seeks
        flash_s = missed_bytes / rate + waits * device.flash.latency_us * 1e-6
    return ExpertTime(dense_bytes / dram, used_bytes / dram, flash_s, overlap)
