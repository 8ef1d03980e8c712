"""Mixture of experts: which experts are loaded, what caches of them miss, what routing to a cache costs."""

from __future__ import annotations

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from backend.errors import UserError
from backend.experiments.routing_records import RoutingInfo
from backend.figures.moe import GridPoint, RoutingSource, findings, miss_figure, model_label
from backend.figures.moe.compared import exact_curves, stored_lines
from backend.models.catalog import DERIVED_MOE
from backend.residency import EVICTIONS, Eviction, MissCurve
from pages._shared.address import Address, place
from pages._shared.figures import show_figure
from pages._shared.moe_controls import Caches, cache_controls
from pages._shared.moe_data import coverages, curve_of, known_routings, readable, record_of
from pages._shared.moe_quality import chosen_point, gained, guessed, quality
from pages._shared.moe_read_out import read_out
from pages._shared.moe_sections import by_layer, lifetimes, measured_speeds, times, traffic
from pages._shared.moe_traces import SHOWN, show_problem, trace_export, trace_import
from pages._shared.navigation import draw
from pages._shared.store import OpenStore, open_store
from pages._shared.sweep_offer import offer_sweeps

_HOW = r"""
- A layer has $N$ routed experts, a token uses $K$ of them, a cache holds $C \ge K$. A token's experts are one
  batch: what is not resident before the token is loaded, and none of them is evicted while it is served.
  **Miss rate** is $\sum |S \setminus C| / \sum |S|$, $S$ being the experts that a token uses.
- **LRU, LFU (counts kept after eviction), random and Belady** keep a smaller cache's content inside a larger
  one's, so one walk over the recorded routing gives the misses of *every* cache size: lines are exact.
  Inside a token the last rank is the most recent.
- A routing that **looks at the cache** (Cache-Prior, Max-Rank, the cumulative threshold) chooses other
  experts for another cache: its points are measured one by one, each with its own size, and read from a
  stored grid.
- **Belady** evicts what is needed last, on the recorded routing: an oracle, since it knows the future. It
  bounds every rule that keeps that routing; a policy that changes the routing can go below it.
- **Lifetime** is the number of tokens from loading to eviction. What is still resident at the end is
  censored; the curve is the Kaplan–Meier estimate.
- **Entropy** is $-\sum p \ln p$ of the experts' shares of a layer's accesses, over $\ln N$: 1 is even.
- **Time of a token** is simulated: what every token reads and the experts used come from DRAM, misses from
  Flash, one read each with one wait: $t = \mathrm{dense} + K\,t_\mathrm{expert} + \mathrm{misses} \cdot
  (\mathrm{bytes}/B_\mathrm{Flash} + \mathrm{seek})$.
- **Quality** is paired with the model's own routing on the same windows: ΔNLL ± its standard error.
- Source of cache-conditional routing: [arXiv 2412.00099](https://arxiv.org/abs/2412.00099); stack distances:
  Mattson et al. 1970. `python -m backend misscurve TRACE --policy lru` prints a trace's curve.
"""
_EMPTY = """
Nothing is stored yet. Two ways to begin:

- **A model.** Run a sweep of routings on a mixture of experts, as offered below for the one derived from
  SmolLM2-135M: it records which experts each token uses and what every policy loses in quality.
- **A trace from a device.** Import a `route_trace v1` file; traffic, misses at every cache size, lifetimes
  and simulated times are shown at once.
"""


def page() -> None:
    """Draw the page."""
    st.title("Mixture of experts")
    st.markdown("Which experts tokens use, what a cache of them misses, and what routing to the cache costs.")
    opened = open_store()
    address = Address()
    known, problems = known_routings(opened)
    with place():
        show_problem()
        _say(problems)
    shown = [source for source in known if source.original is not None]
    if not shown:
        st.info(_EMPTY, icon=":material/hub:")
        trace_import(opened)
        _offers(opened, None)
    else:
        source, problems = readable(_source(address, shown))
        with place():
            _say(problems)
        if source.original is None:
            trace_import(opened)
            _offers(opened, source if source.model else None)
        else:
            _routing(opened, address, source)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)


def _say(problems: list[str]) -> None:
    for sentence in problems:
        st.error(sentence, icon=":material/error:")


def _source(address: Address, shown: list[RoutingSource]) -> RoutingSource:
    by_label = {source.label: source for source in shown}
    wanted = st.session_state.pop("moe_show", None)
    for source in shown:
        if wanted in source.infos:
            st.session_state[SHOWN] = source.label
    return by_label[
        address.choice("Routing of", list(by_label), SHOWN, help="A model on a text, or an imported trace.")
    ]


def _routing(opened: OpenStore, address: Address, source: RoutingSource) -> None:
    info = source.original
    assert info is not None
    record = record_of(info)
    left, right = st.columns([2, 5], gap="large")
    with left:
        caches = cache_controls(address, record)
        chosen = chosen_point(address, source, caches)
    with right:
        read_out(info, record, caches)
        said = [
            *findings(record, caches.slots, caches.rule, caches.start),
            gained(source, record, caches),
            guessed(source),
        ]
        st.markdown("\n".join(f"- {sentence}" for sentence in said if sentence))
    with _section("Miss rate against cache size"):
        _misses(address, source, info, caches, chosen)
    with _section("Quality against misses"):
        if source.imported:
            st.info(
                "λ and quality: not available for an imported trace. It says which experts were used, not "
                "what others would have cost."
            )
        else:
            quality(address, source, info, caches, chosen)
    with _section("Traffic of experts"):
        traffic(address, source, info, record)
    with _section("Layer by layer"):
        by_layer(opened, source, info, record, caches, chosen)
    with _section("How long experts stay"):
        lifetimes(source, info, record, caches)
    with _section("Time of a token, simulated"):
        times(address, source, info, record, caches, chosen)
    if not source.imported:
        with _section("Measured, not simulated"):
            measured_speeds(opened, source)
    with _section("Traces"):
        trace_export(opened, source, record, caches)
        trace_import(opened)
    _offers(opened, source)


def _section(title: str) -> DeltaGenerator:
    st.header(title)
    return place()


def _offers(opened: OpenStore, source: RoutingSource | None) -> None:
    """Offer the sweeps that fill this page in: for the model that is shown, else for the derived one."""
    if source is None or source.imported:
        offer_sweeps(
            opened,
            DERIVED_MOE,
            coverages(opened, None),
            f"{model_label(DERIVED_MOE)}: "
            "its numbers are of no pre-trained mixture. WikiText-2 is read from the data root.",
        )
    else:
        offer_sweeps(opened, source.model, coverages(opened, source.model_sha256))


def _misses(
    address: Address, source: RoutingSource, info: RoutingInfo, caches: Caches, chosen: GridPoint | None
) -> None:
    record = record_of(info)
    log = address.toggle("Logarithmic miss rates", "log")
    curves: dict[Eviction, MissCurve] = {}
    try:
        for rule in EVICTIONS:
            if (0, rule, "cold") in record.curves:
                curves[rule] = curve_of(info, caches.scope, rule, caches.start)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    others, lines = {}, []
    if (caches.scope, caches.start) == ("per-layer", source.start):
        others = exact_curves(source, chosen, caches.rule, record_of)
        lines = stored_lines(source, chosen, caches.rule)
    elif source.points:
        st.caption(
            f"Other policies were measured with a cache a layer and a {source.start} start: left out here."
        )
    spec = miss_figure(
        source.label, curves, scope=caches.scope, start=caches.start, others=others, stored=lines, log=log,
        where=source.origin(info, [point for _, _, points in lines for point in points]),
    )  # fmt: skip
    show_figure(spec, "misses", height=460)


draw(page)
