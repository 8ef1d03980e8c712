"""How this package's kernels are compiled: without the GIL, no threads of their own, machine code kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")

_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_DIGEST = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:12]


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel when it is first called, and keep the machine code where a cache can be written.

    Kernels release the GIL and start no threads, so pages and workers may call them from any thread.
    """
    # numba names its cache file after the function and looks for changes in that function's file alone;
    # the digest makes a change in a kernel that this one calls count too.
    function.__qualname__ = f"{function.__qualname__}_{_DIGEST}"
    try:
        return cast(Callable[P, R], numba.njit(function, nogil=True, cache=True))
    except RuntimeError:  # a read-only installation without a home: compiled anew in every process
        return cast(Callable[P, R], numba.njit(function, nogil=True))
