"""The read-outs of "Mixture of experts": what the chosen cache misses."""

from __future__ import annotations

import streamlit as st

from backend.errors import UserError
from backend.experiments.routing_records import RoutingInfo
from backend.figures.moe import BEYOND
from backend.residency import RoutingRecord
from pages._shared.moe_controls import Caches
from pages._shared.moe_data import curve_of, lifetimes_of
from pages._shared.text import size


def read_out(info: RoutingInfo, record: RoutingRecord, caches: Caches) -> None:
    """Show the measured figures of the chosen caches."""
    try:
        curve = curve_of(info, caches.scope, caches.rule, caches.start)
        best = curve_of(info, caches.scope, "belady", caches.start)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    capacity = max(caches.capacity, curve.smallest)
    tokens = curve.tokens / len(record.layers)  # a layer's tokens: each token comes once a layer
    missed, bound = curve.miss_rate(capacity), best.miss_rate(capacity)
    loads = curve.misses(capacity) / max(1.0, tokens)
    st.markdown("**Recorded**, the original routing; misses walked exactly, Belady's as an oracle")
    with st.container(horizontal=True, key="measured"):
        _metric("Miss rate", f"{missed:.1%}", f"Belady {bound:.1%}")
        _metric("Loaded per token", f"{loads:.3g} experts", "all layers")
        if record.expert_bytes:
            loaded = loads * record.expert_bytes
            if caches.scope == "per-layer":
                loaded = record.miss_bytes_per_token(caches.slots, caches.rule, caches.start) or 0.0
            _metric("From Flash per token", size(loaded), f"caches hold {_held(record, caches)}")
        _metric("First uses", f"{curve.first_uses / max(1, curve.accesses):.1%}", "missed at any size")
        if record.routings and caches.scope == "per-layer" and caches.rule != "random":
            found = lifetimes_of(info, caches.slots, caches.start)[caches.rule]
            median = found.median()
            value = "–" if median is None else f"{median} tokens"
            aside = BEYOND if median is None else f"{found.censored_share:.0%} still resident"
            _metric("Median lifetime", value, aside)
    if caches.scope == "global":
        st.caption(
            f"One cache of {caches.capacity:,} experts for all {caches.layers} layers: the memory of "
            f"{caches.slots} a layer. Layers, lifetimes and times below are of a cache a layer."
        )


def _held(record: RoutingRecord, caches: Caches) -> str:
    each = zip(record.experts_by_layer, record.bytes_by_layer, strict=True)
    return size(sum(min(caches.slots, experts) * one for experts, one in each))


def _metric(label: str, value: str, aside: str) -> None:
    st.metric(label, value, aside, delta_color="off", delta_arrow="off", width="content")
