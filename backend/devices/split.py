"""How the DRAM left for caches is split over hooks: the same for every linear, by hand, or optimised.

All functions take many DRAM sizes at once and return capacities in entries. # [P] → [P, H]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.devices.hit_curves import Floats
from backend.devices.hooks import Hook

# A capacity of 99.9999999 entries is 100 whose byte count was rounded.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class HookArrays:
    """The hooks' figures as arrays. # [H] each

    Attributes:
        hooks: The hooks themselves.
        entries: N.
        kept: Entries kept a token.
        linears: Linears a mask covers.
        linear_bytes: Bytes of an entry in one linear.
        entry_bytes: Bytes of an entry in all its linears.
        is_input: Whether the hook is at the MLP's input.
    """

    hooks: tuple[Hook, ...]
    entries: Floats
    kept: Floats
    linears: Floats
    linear_bytes: Floats
    entry_bytes: Floats
    is_input: NDArray[np.bool_]

    @classmethod
    def of(cls, hooks: Sequence[Hook]) -> HookArrays:
        """Return the arrays of these hooks."""
        linears = np.array([hook.linears for hook in hooks], dtype=np.float64)
        linear_bytes = np.array([hook.entry_bytes for hook in hooks], dtype=np.float64)
        return cls(
            hooks=tuple(hooks),
            entries=np.array([hook.entries for hook in hooks], dtype=np.float64),
            kept=np.array([hook.kept for hook in hooks], dtype=np.float64),
            linears=linears,
            linear_bytes=linear_bytes,
            entry_bytes=linears * linear_bytes,
            is_input=np.array([hook.site == "mlp_in" for hook in hooks], dtype=np.bool_),
        )

    def hits(self, capacities: Floats) -> Floats:
        """Return the entries hit a token by caches of these sizes; never more than fit. # [P, H] → [P, H]"""
        rates = np.empty_like(capacities)
        for h, hook in enumerate(self.hooks):
            rates[:, h] = hook.curve.at(capacities[:, h] / hook.entries)
        return np.minimum(rates * self.kept, capacities)


def uniform_split(hooks: HookArrays, dynamic_bytes: Floats) -> Floats:
    """Give every masked linear the same bytes (arXiv 2412.01380). # [P] → [P, H]"""
    per_linear = dynamic_bytes / hooks.linears.sum()
    return _whole_entries(per_linear[:, None] / hooks.linear_bytes, hooks)


def manual_split(hooks: HookArrays, dynamic_bytes: Floats, input_share: float) -> Floats:
    """Give the input's linears ``input_share`` of the bytes, the neurons' the rest, evenly. # [P] → [P, H]"""
    shares = np.where(hooks.is_input, input_share, 1 - input_share)
    of_kind = np.where(
        hooks.is_input, hooks.linears[hooks.is_input].sum(), hooks.linears[~hooks.is_input].sum()
    )
    return _whole_entries(dynamic_bytes[:, None] * shares / of_kind / hooks.linear_bytes, hooks)


@dataclass(frozen=True, eq=False)
class OptimisedSplit:
    """Puts each byte where it saves most time: greedily along the concave hulls of the hit curves.

    A cache of c entries costs ``c·entry_bytes`` and saves ``hits(c)·seconds_per_hit`` a token, so this is a
    knapsack of the hulls' segments, taken by falling saving a byte; the last one in part. Exact when the
    curves are concave (up to the rounding to whole entries); else every whole segment is well spent at
    least, and the simulator compares with the uniform split. Sorted once, it serves any DRAM size.

    Attributes:
        hooks: The hooks.
        starts: Where each hook's segments begin. # [H+1]
        order: The segments in the order in which they are taken. # [S]
        place: When each segment is taken: the inverse of ``order``. # [S]
        spent: Bytes spent before each step, and in the end. # [S+1]
    """

    hooks: HookArrays
    starts: NDArray[np.int64]
    order: NDArray[np.int64]
    place: NDArray[np.int64]
    spent: Floats

    @classmethod
    def of(cls, hooks: HookArrays, seconds_per_hit: Floats) -> OptimisedSplit:
        """Sort the segments.

        Args:
            hooks: The hooks.
            seconds_per_hit: Time that one hit entry saves against a miss. # [H]
        """
        starts, costs, slopes = _segments(hooks, seconds_per_hit)
        order = np.argsort(-slopes, kind="stable")  # stable: equal ones in the order of the hooks
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        return cls(hooks, starts, order, place, np.concatenate([[0.0], np.cumsum(costs[order])]))

    def capacities(self, dynamic_bytes: Floats) -> Floats:
        """Return the capacities in entries. # [P] → [P, H]"""
        hooks = self.hooks
        taken = np.searchsorted(self.spent[1:], dynamic_bytes * (1 + _ROUNDING), side="right")  # [P]
        capacities = np.zeros((len(dynamic_bytes), len(hooks.hooks)))
        for h, hook in enumerate(hooks.hooks):
            mine = self.place[self.starts[h] : self.starts[h + 1]]  # rising, since a hull's slopes fall
            vertices = hook.curve.hull[0] * hook.entries
            capacities[:, h] = vertices[np.searchsorted(mine, taken, side="left")]
        partly = np.flatnonzero(taken < len(self.order))
        next_hook = np.searchsorted(self.starts, self.order[taken[partly]], side="right") - 1
        left = dynamic_bytes[partly] - self.spent[taken[partly]]
        capacities[partly, next_hook] += np.maximum(left, 0) / hooks.entry_bytes[next_hook]
        return _whole_entries(capacities, hooks)


def _segments(hooks: HookArrays, seconds_per_hit: Floats) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Return all hulls' segments, hook by hook.

    Returns:
        Where each hook's begin (# [H+1]), their bytes and the seconds saved a byte. # [S] each
    """
    costs, slopes, counts = [], [], [0]
    for h, hook in enumerate(hooks.hooks):
        widths, steepness = hook.curve.hull_segments
        if seconds_per_hit[h] <= 0:  # Flash is no slower than DRAM
            widths, steepness = widths[:0], steepness[:0]
        costs.append(widths * (hook.entries * hooks.entry_bytes[h]))
        slopes.append(steepness * (hook.kept * seconds_per_hit[h] / (hook.entries * hooks.entry_bytes[h])))
        counts.append(len(widths))
    return np.cumsum(counts), np.concatenate(costs), np.concatenate(slopes)


def _whole_entries(capacities: Floats, hooks: HookArrays) -> Floats:
    return np.minimum(np.floor(capacities * (1 + _ROUNDING)), hooks.entries)
