"""The figures of the page "Mixture of experts" that every routing has."""

from __future__ import annotations

from functools import partial

import pandas as pd
import streamlit as st

from backend.devices import DEVICES
from backend.experiments.routing_records import RoutingInfo
from backend.figures import FigureSpec, Provenance
from backend.figures.moe import (
    GridPoint,
    RoutingSource,
    TimeRow,
    balance_of,
    layer_figure,
    lifetime_figure,
    model_label,
    policy_line,
    speed_figure,
    stored_time,
    time_figure,
    time_of,
    traffic_map,
)
from backend.figures.moe.miss_rates import TITLES
from backend.residency import EVICTIONS, Eviction, RoutingRecord
from pages._shared.address import Address
from pages._shared.figures import show_figure
from pages._shared.moe_controls import Caches
from pages._shared.moe_data import layer_rates, lifetimes_of, record_of, speeds_of
from pages._shared.store import OpenStore
from pages._shared.text import size

_IO = {"In turn": False, "Overlapped": True}


def traffic(address: Address, source: RoutingSource, info: RoutingInfo, record: RoutingRecord) -> None:
    """Show which experts are loaded, and a table of how evenly."""
    by_load = address.toggle(
        "Sort experts by load", "by_load", help="In each layer the busiest first: shows how uneven loads are."
    )
    where = source.origin(info)
    changed = info.path.stat().st_mtime_ns
    spec: FigureSpec = _traffic_map(source.label, str(info.path), changed, by_load, where.runs, where, record)
    height = min(760, 150 + 13 * len(record.layers))
    show_figure(spec, "traffic", height=height, legend=False, paper=(5.5, 3.4))
    with st.popover("Balance by layer", icon=":material/balance:", key="balance", on_change="rerun") as table:
        if table.open:
            balance = balance_of(record)
            columns = {
                "Layer": record.layers,
                "Entropy over ln N": balance.entropy.round(4),
                "Busiest expert, × an even share": balance.imbalance.round(2),
                "Experts never used": balance.unused,
            }
            st.dataframe(pd.DataFrame(columns), hide_index=True, alt="How evenly each layer's load falls")


def by_layer(
    opened: OpenStore,
    source: RoutingSource,
    info: RoutingInfo,
    record: RoutingRecord,
    caches: Caches,
    chosen: GridPoint | None,
) -> None:
    """Show miss rates layer by layer, those of the chosen policy beside them."""
    stored = None
    if chosen is not None:
        stored = policy_line(
            source, chosen, record, caches.slots, caches.rule, caches.start, record_of,
            partial(layer_rates, opened),
        )  # fmt: skip
        if stored is None:
            st.caption(f"{chosen.title} was not measured by layer with such caches: left out here.")
    spec = layer_figure(
        record,
        source.label,
        caches.slots,
        caches.rule,
        caches.start,
        stored=stored,
        where=source.origin(info, [] if stored is None or chosen is None else [chosen]),
    )
    show_figure(spec, "layers", height=360, paper=(5.5, 2.6))


def lifetimes(source: RoutingSource, info: RoutingInfo, record: RoutingRecord, caches: Caches) -> None:
    """Show how long experts stay, where the selections are kept."""
    if not record.routings:
        st.info("This routing was stored without its selections, so lifetimes cannot be followed.")
        return
    found = lifetimes_of(info, caches.slots, caches.start)
    spec = lifetime_figure(
        found, source.label, caches.slots, record.tokens_kept, source.origin(info), of=record.tokens
    )
    show_figure(spec, "lifetimes", height=380, paper=(5.5, 3.0))


def times(
    address: Address,
    source: RoutingSource,
    info: RoutingInfo,
    record: RoutingRecord,
    caches: Caches,
    chosen: GridPoint | None,
) -> None:
    """Show the simulated time of a token on a device."""
    if not all(record.bytes_by_layer):
        st.info(
            "The size of an expert is not known for this routing, so no time can be simulated. A trace says "
            "it in its comments, as `# layer=0 expert_bytes=3059712`."
        )
        return
    titles = {profile.title: profile for profile in DEVICES.values()}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        device = titles[address.choice("Device", list(titles), "device", width=360)]
        overlap = _IO[
            address.segments(
                "DRAM and Flash are read", list(_IO), "io", default="In turn",
                help="In turn: times add. Overlapped: the longer one counts.",
            )
        ]  # fmt: skip
    rules: list[Eviction] = [rule for rule in EVICTIONS if (0, rule, caches.start) in record.curves]

    def rows(slots: int) -> list[TimeRow]:
        return [
            TimeRow(
                TITLES[rule],
                time_of(record, device, slots, rule, caches.start, overlap=overlap),
                oracle=rule == "belady",
            )
            for rule in rules
        ]

    smallest = rows(record.experts_per_token)
    longest = max(row.time.dense_s + row.time.experts_s + row.time.misses_s for row in smallest)
    shown = rows(caches.slots)
    if chosen is not None and chosen.slots is not None and caches.start == source.start:
        shown.insert(
            0,
            TimeRow(
                f"{chosen.title}, {chosen.slots} slots", stored_time(record, device, chosen, overlap=overlap)
            ),
        )
    spec = time_figure(shown, source.label, device, caches.slots, longest=longest, where=source.origin(info))
    show_figure(spec, "time", height=110 + 42 * len(shown), paper=(5.5, 2.4))
    beside = (
        f"Beside routed experts every token reads {size(record.dense_bytes)}"
        + (", as the trace says it layer by layer: without head and KV cache." if source.imported else ".")
        if record.dense_bytes
        else "What every token reads beside routed experts is not known here and left out."
    )
    st.caption(
        f"An expert has {size(record.expert_bytes)} as it was stored. {beside} {device.title}: "
        f"{device.source}"
    )


def measured_speeds(opened: OpenStore, source: RoutingSource) -> None:
    """Show what decoding with experts on disk measured, or the command that measures it."""
    rows = speeds_of(opened, source.model_sha256)
    if rows.empty:
        st.info(
            f"Decoding of {model_label(source.model)} with its experts on disk was not measured on this "
            "machine yet. A sweep with `evaluation: {kind: expert_store}` measures it.",
            icon=":material/timer:",
        )
        return
    show_figure(speed_figure(rows, model_label(source.model)), "store_speed", height=380, paper=(5.5, 3.0))


def _make_traffic_map(
    label: str,
    path: str,
    changed: int,
    by_load: bool,
    runs: tuple[str, ...],
    _where: Provenance,
    _record: RoutingRecord,
) -> FigureSpec:
    return traffic_map(_record, label, by_load=by_load, where=_where)


# No slider moves it, and 6,144 cells take longer to make than all other figures together.
_traffic_map = st.cache_resource(_make_traffic_map, show_spinner=False, max_entries=16)
