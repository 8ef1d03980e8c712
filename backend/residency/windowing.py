"""Windowing: fast memory holds what the last k tokens used, and only the difference is loaded.

Source: Alizadeh et al., "LLM in a flash", arXiv 2312.11514, section 3.1: with the window of k tokens, token
t loads ``m_t ∖ (m_{t−k} ∪ … ∪ m_{t−1})``, and what is in none of the last k masks is let go. The memory it
takes is not fixed beforehand: it is the size of that union.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.residency.trace import Trace


@dataclass(frozen=True, eq=False)
class WindowCurve:
    """Misses and memory of every window length k, from 0 to T.

    Attributes:
        misses: Of all tokens. # int64 [T+1]
        mean_resident: Entries in fast memory after a token, averaged over the tokens. # float64 [T+1]
        accesses: All accesses.
    """

    misses: NDArray[np.int64]
    mean_resident: NDArray[np.float64]
    accesses: int

    @property
    def first_uses(self) -> int:
        """Accesses to an entry never used before: misses at any length."""
        return int(self.misses[-1])

    def miss_rate(self, window: int) -> float:
        """Return misses over accesses with a window of ``window`` tokens."""
        return float(self.misses[min(window, len(self.misses) - 1)]) / max(1, self.accesses)


def window_curve(trace: Trace) -> WindowCurve:
    """Return the misses and the memory of every window length, from one pass.

    An access misses if its entry was last used more than k tokens before, and an entry stays for
    ``min(k, tokens to its next use)`` tokens after each use: both follow from the gaps between uses.
    """
    from backend.residency import stack_kernels

    tokens = trace.tokens
    gaps, stays = np.zeros(tokens + 1, np.int64), np.zeros(tokens + 1, np.int64)
    stack_kernels.reuse_gaps(*trace.kernel, trace.size, tokens, gaps, stays)
    accesses = int(trace.counts.sum())
    longer = stays.sum() - np.cumsum(stays)  # uses whose entry is not used again within k tokens
    resident = np.concatenate(
        [[0], np.cumsum(longer[:-1])]
    )  # Σ min(k, stay), since min(k, s) = Σ_{j<k} [s > j]
    return WindowCurve(accesses - np.cumsum(gaps), resident / max(1, tokens), accesses)


@dataclass(frozen=True, eq=False)
class WindowWalk:
    """What one window length did over a trace, token by token.

    Attributes:
        misses: Entries loaded. # int64 [T]
        resident: Entries in fast memory after the token. # int64 [T]
    """

    misses: NDArray[np.int64]
    resident: NDArray[np.int64]


def simulate_window(trace: Trace, window: int) -> WindowWalk:
    """Walk a trace with a window of ``window`` tokens; gives the largest memory it ever takes.

    Args:
        trace: What each token accesses.
        window: k, in tokens, at least 1.
    """
    if window < 1:
        raise ValueError("a window has at least one token")
    last = np.full(trace.size, -window - 1)
    misses, resident = np.zeros(trace.tokens, np.int64), np.zeros(trace.tokens, np.int64)
    for t, members in enumerate(trace.members()):
        misses[t] = np.count_nonzero(last[members] < t - window)
        last[members] = t
        resident[t] = np.count_nonzero(last > t - window)
    return WindowWalk(misses, resident)
