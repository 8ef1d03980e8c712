"""Routing policies of mixtures on the page Trade-offs: quality against misses, the best within a budget."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.figures.curves import title_of
from backend.figures.moe import ORIGINAL, RoutingSource
from backend.figures.moe.budget import fewest_misses
from backend.figures.moe.compared import cost_of
from backend.figures.moe.quality import COSTS
from pages._shared.address import Address
from pages._shared.evaluation import model_note
from pages._shared.moe_controls import cache_controls
from pages._shared.moe_data import known_routings, readable, record_of
from pages._shared.moe_quality import Drawn, quality
from pages._shared.store import OpenStore
from pages._shared.text import as_rise, with_error

HOW = r"""
- Each token of a **mixture of experts** reads all of its router's choice, so what a policy saves is not what
  is read but what is **missing in fast memory**: misses of a cache of so many experts a layer. **Simulated**
  on the recorded routing, exactly; a policy that looks at the cache was measured with it, at stored sizes.
- **Quality** is measured, paired with the model's own routing on the same windows.
- **Belady** knows the future and is an oracle on the original routing: a bound, never on the front.
- Miss rates of policies that use fewer experts are shares of a smaller number; then loads are compared.
- Time of a token, traffic and lifetimes stand on the page Mixture of experts.
"""


def measured_routings(opened: OpenStore) -> list[RoutingSource]:
    """Return the mixtures and texts on which policies were measured beside the original routing."""
    known, _ = known_routings(opened)
    return [source for source in known if source.original is not None and source.points]


def routing_section(address: Address, sources: list[RoutingSource]) -> None:
    """Show one mixture's policies: the figure, and what each misses within a budget of quality."""
    by_label = {source.label: source for source in sources}
    source, problems = readable(by_label[address.choice("Routing of", list(by_label), "routing")])
    for sentence in problems:
        st.error(sentence, icon=":material/error:")
    info = source.original
    if info is None:
        return
    left, right = st.columns([2, 5], gap="large")
    with left:
        caches = cache_controls(address, record_of(info), measured=True)
    with right:
        drawn = quality(address, source, info, caches, None, prefix="routing_")
    if drawn is not None:
        st.header("Within a budget")
        st.fragment(_budget)(source, drawn)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(HOW)
        st.markdown(model_note(source.model))


def _budget(source: RoutingSource, drawn: Drawn) -> None:
    rise = Address().number(
        "Perplexity may rise by (%)", 0.0, 10.0, "rise", default=1.0, step=0.25,
        help="Above the original routing's, on the same windows.",
    )  # fmt: skip
    name, unit, _ = COSTS[drawn.cost]
    best = fewest_misses(drawn.placed, rise / 100)
    own = next((each.cost for each in drawn.placed if each.point.policy == ORIGINAL), None)
    rows = []
    for policy, placed in best.items():
        point = None if placed is None else placed.point
        rows.append(
            {
                "Policy": title_of(policy),
                "Point": "none measured within it" if point is None else point.title,
                f"{name} ({unit}) ↓": None if placed is None else placed.cost,
                "Of the original's": None if placed is None or not own else placed.cost / own,
                "Perplexity": "–" if point is None or policy == ORIGINAL else as_rise(point.delta_nll),
                "ΔNLL (nats/token) ↓": "–"
                if point is None or policy == ORIGINAL
                else with_error(point.delta_nll, sign=True),
                "Experts a token and layer": None if point is None else point.values.get("experts_per_token"),
                "How": "" if point is None else f"quality {point.how}, misses simulated",
            }
        )
    assert source.original is not None
    bound = cost_of(record_of(source.original), drawn.cost, drawn.slots, "belady", source.start)
    if bound is not None:
        rows.append(
            {
                "Policy": "Belady (bound)", "Point": "the original routing, the future known",
                f"{name} ({unit}) ↓": bound, "Of the original's": bound / own if own else None,
                "Perplexity": "–", "ΔNLL (nats/token) ↓": "–", "Experts a token and layer": None,
                "How": "oracle",
            }
        )  # fmt: skip
    columns = {
        f"{name} ({unit}) ↓": st.column_config.NumberColumn(format="%.2f"),
        "Of the original's": st.column_config.NumberColumn(format="%.2f×"),
        "Experts a token and layer": st.column_config.NumberColumn(format="%.1f"),
    }
    table = pd.DataFrame(rows).sort_values(f"{name} ({unit}) ↓", na_position="last")
    st.dataframe(
        table,
        hide_index=True,
        column_config=columns,
        key="routing_budget",
        alt="Within a budget",
        placeholder="–",
    )
    st.caption(
        f"Each policy's stored point that misses least with a cache of {drawn.slots} experts a layer and "
        "stays within the budget; nothing is interpolated. ± one standard error over windows, paired."
    )
