"""The Pareto front: points that no other point beats in both cost and quality."""

from __future__ import annotations

from collections.abc import Sequence

from backend.figures.spec import Better


def pareto_front(cost: Sequence[float], quality: Sequence[float], better: Better) -> list[bool]:
    """Tell which points are on the front of lowest cost and best quality.

    A point is dominated if another one costs no more and is no worse, and is strictly better in one of the
    two; of equal points, all are kept.

    Args:
        cost: Each point's cost, lower is better.
        quality: Each point's quality.
        better: Whether higher or lower quality values are better.

    Returns:
        One flag a point, True on the front.
    """
    sign = 1.0 if better == "lower" else -1.0
    loss = [sign * value for value in quality]
    on_front = [False] * len(loss)
    best = float("inf")  # of all that cost strictly less
    order = sorted(range(len(loss)), key=lambda i: (cost[i], loss[i]))
    at = 0
    while at < len(order):
        same = _equal_cost(order, cost, at)
        lowest = loss[same[0]]
        if lowest < best:
            for i in same:
                on_front[i] = loss[i] == lowest
            best = lowest
        at += len(same)
    return on_front


def _equal_cost(order: list[int], cost: Sequence[float], at: int) -> list[int]:
    """Return the points from place ``at`` on that cost the same, the best first."""
    end = at
    while end < len(order) and cost[order[end]] == cost[order[at]]:
        end += 1
    return order[at:end]
