"""The controls of the page "Mixture of experts", and what they ask for."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from backend.figures.moe import Scope
from backend.residency import Eviction, RoutingRecord
from backend.residency.routing_record import Start
from pages._shared.address import Address

_RULES: dict[str, Eviction] = {"LRU": "lru", "LFU": "lfu", "Random": "random", "Belady (bound)": "belady"}
_SCOPES: dict[str, Scope] = {"A cache a layer": "per-layer", "One for all layers": "global"}
_STARTS: dict[str, Start] = {"Cold": "cold", "Warm": "warm"}


@dataclass(frozen=True)
class Caches:
    """Which caches are asked for.

    Attributes:
        slots: C, in experts of one layer; one cache for all layers has this many times the layers.
        rule: The eviction rule.
        scope: A cache a layer, or one for all.
        start: Counted from empty caches, or once they are filled.
        layers: Number of MoE layers.
    """

    slots: int
    rule: Eviction
    scope: Scope
    start: Start
    layers: int

    @property
    def capacity(self) -> int:
        """Slots of one cache: of a layer, or of all layers together."""
        return self.slots * (self.layers if self.scope == "global" else 1)


def cache_controls(address: Address, record: RoutingRecord, *, measured: bool = False) -> Caches:
    """Show the controls of the caches and return what they say.

    Args:
        address: The page's address.
        record: The routing.
        measured: Only what policies were measured with is asked for: a cache a layer, cold.
    """
    slots = _slots(address, record)
    rules = {name: rule for name, rule in _RULES.items() if (0, rule, "cold") in record.curves}
    rule = rules[address.choice("Eviction", list(rules), "eviction")]
    if measured:
        return Caches(slots, rule, "per-layer", "cold", len(record.layers))
    scope = _SCOPES[
        address.segments(
            "Caches", list(_SCOPES), "scope", default="A cache a layer",
            help="One cache for all layers has the same memory: the slots of all layers together.",
        )
    ]  # fmt: skip
    start: Start = "cold"
    if record.has_warm:
        start = _STARTS[
            address.segments(
                "Start", list(_STARTS), "start", default="Cold",
                help="Cold: caches are empty and everything counts. Warm: the prompt (of a text the first "
                "eighth of each window) fills them and only what follows counts.",
            )
        ]  # fmt: skip
    return Caches(slots, rule, scope, start, len(record.layers))


def _slots(address: Address, record: RoutingRecord) -> int:
    """Show the slider of the cache size; its range follows the routing."""
    low, high = record.experts_per_token, record.experts
    if low >= high:
        st.caption(f"Every token uses all {high} experts; there is nothing to cache but all of them.")
        return high
    default = min(max(2 * low, high // 4), high)
    return int(
        address.number(
            "Cache size (experts a layer)", low, high, "slots", default=default, step=1,
            help=f"From {low}, which one token uses, to {high}, all of them.",
        )
    )  # fmt: skip
