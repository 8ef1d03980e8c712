"""One seed made of several numbers, so that chunking, batching and order change no draw."""

from __future__ import annotations

import hashlib


def mixed_seed(*numbers: int) -> int:
    """Return a seed in [0, 2⁶³) that depends on each number and its place."""
    return int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:8]) >> 1
