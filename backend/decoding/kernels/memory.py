"""Reading memory as fast as the processor can: what every decoding step is held against."""

from __future__ import annotations

import numpy as np
from numba import prange

from backend.compiling import compiled_parallel
from backend.decoding.kernels.linear import Floats


@compiled_parallel
def read_all(values: Floats, out: Floats, threads: int) -> None:
    """Read every value once; ``out`` gets each thread's sum, so that nothing is left out. # [N], [threads]"""
    size = values.shape[0]
    for t in prange(threads):
        part = values[size * t // threads : size * (t + 1) // threads]
        total = np.float32(0)
        for i in range(part.shape[0]):
            total += part[i]
        out[t] = total
