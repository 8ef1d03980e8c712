"""Flash storage: how many bytes a second it delivers, by the size of one read."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

GB = 1e9
"""One gigabyte in bytes: decimal, as in the paper and on specification sheets."""


@dataclass(frozen=True)
class Flash:
    """Read bandwidth of a Flash device as a function of the read's size.

    Attributes:
        points: (read size in bytes, GB/s), sizes rising. Between them log bandwidth is interpolated over log
            size. Below the first point the device is bound by reads a second, so bandwidth falls in
            proportion to the size; above the last it stays.
        latency_us: Wait for the first byte, in µs. Reads that belong to one hook are issued together and
            wait once; bandwidths are those with many reads under way.
        source: Where the figures come from.
        assumed: Which of the figures are estimates rather than published ones ("latency").
    """

    points: tuple[tuple[float, float], ...]
    latency_us: float
    source: str
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        sizes = [size for size, _ in self.points]
        if not sizes or sizes != sorted(set(sizes)) or min(sizes) <= 0 or min(r for _, r in self.points) <= 0:
            raise ValueError("a Flash device needs points of rising read sizes, all figures above 0")

    @property
    def peak_gb_per_s(self) -> float:
        """Bandwidth of large sequential reads, in GB/s: what streams a dense model."""
        return self.points[-1][1]

    def gb_per_s(self, read_bytes: float) -> float:
        """Return the bandwidth of reads of ``read_bytes`` bytes each, in GB/s.

        One point alone is a bandwidth that does not depend on the size (the paper's 1 GB/s).
        """
        sizes = [size for size, _ in self.points]
        if len(sizes) == 1 or read_bytes >= sizes[-1]:
            return self.peak_gb_per_s
        if read_bytes <= sizes[0]:
            return self.points[0][1] * read_bytes / sizes[0]
        right = bisect.bisect_right(sizes, read_bytes)
        (low, slow), (high, fast) = self.points[right - 1], self.points[right]
        share = math.log(read_bytes / low) / math.log(high / low)
        return slow * math.exp(share * math.log(fast / slow))


def flat(gb_per_s: float, source: str) -> Flash:
    """Return a Flash device without latency whose bandwidth does not depend on the read's size."""
    return Flash(((1.0, gb_per_s),), 0.0, source)


def from_iops(
    iops: float,
    sequential_gb_per_s: float,
    latency_us: float,
    source: str,
    assumed: tuple[str, ...] = ("latency",),
) -> Flash:
    """Return a Flash device from the two figures on a specification sheet.

    Args:
        iops: Random reads of 4 KiB a second, at the sheet's queue depth.
        sequential_gb_per_s: Sequential read bandwidth, in GB/s; taken to be reached at 512 KiB.
        latency_us: Wait for the first byte, in µs.
        source: The sheet.
        assumed: Which figures are estimates.
    """
    small = min(iops * 4096 / GB, sequential_gb_per_s)
    return Flash(((4096, small), (524_288, sequential_gb_per_s)), latency_us, source, assumed)
