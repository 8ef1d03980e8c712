"""The machine's memory bandwidth, measured by reading more than any cache holds."""

from __future__ import annotations

import time
from functools import cached_property

import numba
import numpy as np

from backend.decoding.kernels.linear import Floats
from backend.decoding.kernels.memory import read_all

BUFFER_BYTES = 256 * 2**20
READS = 5


class MemoryReader:
    """Measures how fast this process can read memory, with the threads that the kernels use."""

    @cached_property
    def _buffer(self) -> Floats:
        return np.ones(BUFFER_BYTES // 4, np.float32)

    def bytes_per_second(self) -> float:
        """Return the best of five plain reads of 256 MiB, in B/s: what memory gives when nobody else asks."""
        threads = numba.get_num_threads()
        out = np.zeros(threads, np.float32)
        read_all(self._buffer, out, threads)
        seconds = []
        for _ in range(READS):
            start = time.perf_counter()
            read_all(self._buffer, out, threads)
            seconds.append(time.perf_counter() - start)
        return BUFFER_BYTES / min(seconds)
