"""How this program's kernels are compiled: without the GIL, machine code kept between processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel when it is first called, and keep the machine code where a cache can be written.

    Kernels release the GIL and start no threads, so pages and workers may call them from any thread.
    """
    return _compiled(function)


def compiled_parallel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a kernel whose ``prange`` loops run on numba's threads; call it from one thread at a time.

    Sums may be reordered (and so vectorised); NaN and infinity mean what they always do.
    """
    return _compiled(function, parallel=True, fastmath=REORDERED)


def compiled_reordered(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a helper of a parallel kernel: no threads of its own, sums may be reordered."""
    return _compiled(function, fastmath=REORDERED)


REORDERED = {"reassoc", "contract", "nsz", "arcp"}


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    # numba names its cache file after the function and looks for changes in that function's file alone;
    # the digest makes a change in a kernel that this one calls count too.
    digest = _digest(Path(function.__code__.co_filename).parent)
    function.__qualname__ = f"{function.__qualname__}_{digest}"
    try:
        return cast(Callable[P, R], numba.njit(function, nogil=True, cache=True, **options))
    except RuntimeError:  # a read-only installation without a home: compiled anew in every process
        return cast(Callable[P, R], numba.njit(function, nogil=True, **options))


@cache
def _digest(package: Path) -> str:
    """Return a hash over the sources of a package of kernels."""
    sources = sorted(package.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
