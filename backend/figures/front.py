"""The Pareto front: points that no other point beats in both cost and quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backend.figures.heat_map import Better


def pareto_front(
    cost: Sequence[float], quality: Sequence[float], better: Better, tolerance: float = 0.0
) -> list[bool]:
    """Tell which points are on the front of lowest cost and best quality.

    A point is dominated by one that is better and costs at most ``tolerance`` more, and by one that costs
    less and is no worse. Of equal points, all are kept.

    Args:
        cost: Each point's cost, lower is better.
        quality: Each point's quality.
        better: Whether higher or lower quality values are better.
        tolerance: Costs this near count as equal: measured densities miss their targets by as much.

    Returns:
        One flag a point, True on the front.
    """
    sign = 1.0 if better == "lower" else -1.0
    if len(cost) == 0:
        return []
    loss = np.array([sign * value for value in quality])
    order = np.lexsort((loss, np.array(cost)))
    costs, losses = np.array(cost, dtype=float)[order], loss[order]
    lowest = np.minimum.accumulate(losses)  # of all that cost no more, as they come
    reach = np.searchsorted(costs, costs + tolerance, side="right")
    before = np.searchsorted(costs, costs, side="left")
    beaten = lowest[reach - 1] < losses
    matched = (before > 0) & (lowest[np.maximum(before, 1) - 1] <= losses)
    on_front = np.empty(len(loss), dtype=bool)
    on_front[order] = ~(beaten | matched)
    return [bool(flag) for flag in on_front]
