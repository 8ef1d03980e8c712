"""Names of routing policies for people, and the setting that a slider drags."""

from __future__ import annotations

from backend.figures.moe.grid import ORIGINAL, GridPoint, settings_text

_SWEPT = {
    "cache_prior": "strength",
    "max_rank": "max_rank",
    "cumulative_threshold": "threshold",
    "pruning": "kept",
    "top_p": "p",
}


def routing_title(policy: str) -> str:
    """Return a policy's name for people."""
    if policy == ORIGINAL:
        return "Original routing"
    return policy.replace("_", " ").capitalize()


def strength_of(policy: str) -> str | None:
    """Return the setting that a policy is dragged by, None if it has none."""
    return _SWEPT.get(policy)


def point_title(point: GridPoint) -> str:
    """Return a point's name for people: "Cache-Prior, λ 0.5"."""
    own = settings_text(point.own)
    return f"{routing_title(point.policy)}, {own}" if own else routing_title(point.policy)
