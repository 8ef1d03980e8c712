"""What each policy misses at best while quality stays within a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence

from backend.figures.moe.grid import ORIGINAL
from backend.figures.moe.quality import Placed


def fewest_misses(placed: Sequence[Placed], rise: float) -> dict[str, Placed | None]:
    """Return each policy's point that misses least within a rise of perplexity; None where none does.

    Args:
        placed: Points of one figure: their misses are in the same units, at the same cache.
        rise: How far perplexity may lie above the original routing's, as a share: exp(ΔNLL) − 1.
    """
    found: dict[str, Placed | None] = {each.point.policy: None for each in placed}
    for each in sorted(placed, key=lambda p: p.cost, reverse=True):
        loss = 0.0 if each.point.policy == ORIGINAL else _loss(each)
        if math.expm1(loss) <= rise:
            found[each.point.policy] = each
    return found


def _loss(placed: Placed) -> float:
    delta = placed.point.delta_nll
    return math.inf if delta is None else delta.value
