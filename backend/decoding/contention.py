"""Was a timing disturbed? What others took of the processor while it ran."""

from __future__ import annotations

import os
import time

import psutil

TOLERATED = 0.05
"""Share of the machine's processor time that others may take before a timing counts as disturbed."""


class Contention:
    """Measures others' share of the processor from its making to :meth:`share`."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = time.perf_counter()
        self._busy, self._own = self._now()

    def share(self) -> float:
        """Return the share of all cores' time that other processes, and other machines (steal), took."""
        busy, own = self._now()
        others = (busy - self._busy) - (own - self._own)
        wall = time.perf_counter() - self._start
        return max(0.0, others) / (wall * (os.cpu_count() or 1))

    def _now(self) -> tuple[float, float]:
        times = psutil.cpu_times()._asdict()
        idle = ("idle", "iowait", "guest", "guest_nice")  # guests are counted in user already
        own = self._process.cpu_times()
        return sum(value for name, value in times.items() if name not in idle), own.user + own.system
