"""Means over windows with their standard errors; differences are paired, window by window.

Texts vary far more than methods do: unpaired, 16 windows of WikiText-2 leave ±2.4 on a perplexity;
paired with the dense model on the same windows, ±0.045.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error.

    Attributes:
        value: The mean over all scored tokens.
        stderr: Standard error from the spread of the windows' means; None for fewer than two windows.
        n: Number of scored tokens.
    """

    value: float
    stderr: float | None
    n: int


def estimate(means: Sequence[float], counts: Sequence[int]) -> Estimate:
    """Return the token-weighted mean of window means, its standard error by the windows' spread.

    Windows are the sampling unit: tokens within one are not independent. With unequal counts (a stride)
    this is the ratio estimator, ``sqrt(n/(n−1)·Σ c_w²(m_w − m)²)/Σ c_w``.

    Args:
        means: Mean of each window.
        counts: Scored tokens of each window.
    """
    total = sum(counts)
    value = math.fsum(m * c for m, c in zip(means, counts, strict=True)) / total
    windows = len(means)
    if windows < 2:
        return Estimate(value, None, total)
    squares = math.fsum((c * (m - value)) ** 2 for m, c in zip(means, counts, strict=True))
    return Estimate(value, math.sqrt(windows / (windows - 1) * squares) / total, total)
