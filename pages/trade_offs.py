"""Trade-offs: quality against what is read, every method on the same model, text and device."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple
from typing import Any

import streamlit as st

from backend.figures import COST, QUALITY, STYLES, FigureSpec, TradeOffOptions, point_label, trade_off
from backend.figures.curves import main_precision, title_of
from backend.figures.metrics import ALL, SPEED
from pages._shared.address import Address
from pages._shared.evaluation import Chosen, choose_evaluation, model_note
from pages._shared.figures import show_figure
from pages._shared.measure import measure_section
from pages._shared.measure_latency import latency_result
from pages._shared.navigation import draw
from pages._shared.point_cards import point_cards
from pages._shared.read_outs import budget_section, read_out_section
from pages._shared.speed import choose_timing, joined
from pages._shared.store import open_store
from pages._shared.trade_off_routing import measured_routings, routing_section

_MASKS, _ROUTINGS = "Sparse weights", "Expert routing"
_AT = {"bytes_per_token": "At one number of bytes", SPEED: "At one speed"}
_HOW = r"""
- **Perplexity** is $\exp$ of the mean negative log-likelihood (NLL) over all scored tokens; a window's
  first token is not scored. **ΔNLL** is the NLL minus the dense model's on the same window; its
  standard error comes from the spread over windows. Texts vary far more than methods do, so only paired
  differences tell methods apart.
- **KL** is $\mathrm{KL}(p_\mathrm{dense} \Vert p_\mathrm{sparse})$ a token; **agreement** the share of
  tokens whose most likely next token is the dense model's.
- **MLP density** is the share of MLP weights read, averaged over tokens and layers, as measured from
  the masks that ran. A projection without a mask counts as 1. **Model density** counts all weights that
  a dense token reads.
- The **front** is drawn over usable methods only. An **oracle** looks at what it counts as skipped: it
  is an upper bound, and is never on the front.
- Between two measured points a value is **interpolated** (monotone cubic, PCHIP, for each window, then
  averaged). Every curve ends in the dense model, which each method equals at density 1.
- **Measured speed** is of decoding at batch one, with kernels that read only the chosen weights, timed in
  turns with the dense model in the same run: the speed-up over dense there, times dense's speed (the median
  over all runs), since absolute times drift between runs; ± is one standard error over rounds.
  A latency belongs to a point if weights, method, version, settings and precision are the same, and to a
  machine. Oracles have none. **With int8** adds the same windows with linear weights in 8 bits; their ΔNLL
  is then to the float32 dense model, and KL and agreement, which are stored against int8's own dense model,
  are left out, and int8's speeds were taken in runs of their own.
"""


def _options(address: Address, chosen: Chosen) -> TradeOffOptions:
    """Show the figure's controls and return what they say."""
    present = set(chosen.points["policy"]) - {"dense"}
    order = [*STYLES, *sorted(present - set(STYLES))]
    names = {title_of(name): name for name in order if name in present}
    quality_names = {metric.label: name for name, metric in QUALITY.items()}
    cost_names = {metric.label: name for name, metric in COST.items()}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quality = quality_names[
            address.choice("Quality (vertical)", list(quality_names), "quality", width=215)
        ]
        cost = cost_names[address.choice("Cost (horizontal)", list(cost_names), "cost", width=160)]
        views = [*QUALITY[quality].views, ALL]
        view = address.choice(
            "Range", views, "range", default="Wide", width=150,
            help="How far from the dense model the vertical axis reaches",
        )  # fmt: skip
        log = address.toggle("Log", "log", help="Logarithmic vertical axis")
        dominated = address.toggle(
            "Dominated",
            "dominated",
            default=True,
            help="Show points that another usable point beats, in grey",
        )
    methods = address.several("Methods", list(names), "methods", default=list(names))
    chosen_names = tuple(names[title] for title in methods)
    return TradeOffOptions(quality, cost, chosen_names, log, view, dominated)


def _figure(spec: FigureSpec, labels: dict[str, str]) -> None:
    """Draw the big figure; what is clicked in it is copied into the control of chosen points."""

    def take_selection() -> None:
        selected = st.session_state["trade_off"]["selection"]["points"]
        cells = [point["customdata"] for point in selected if "customdata" in point]
        cells = [cell[0] if isinstance(cell, list) else cell for cell in cells]
        if cells:
            st.session_state["points"] = [labels[cell] for cell in dict.fromkeys(cells) if cell in labels]

    show_figure(spec, "trade_off", on_select=take_selection, selection_mode="points")


def _compared(address: Address) -> str:
    return address.segments(
        "What is compared", [_MASKS, _ROUTINGS], "of", default=_MASKS,
        help="Methods that skip weights of a model, or policies that choose a mixture's experts",
    )  # fmt: skip


def _make_spec(
    _chosen: Chosen, root: str, version: int, evaluation: str, timing: str, options: tuple[Any, ...]
) -> FigureSpec:
    return trade_off(_chosen.points, TradeOffOptions(*options))


_spec = st.cache_resource(_make_spec, show_spinner=False, max_entries=32)


def page() -> None:
    """Draw the page."""
    st.title("Trade-offs")
    st.markdown("What each method costs in quality for the weights it does not read. Drag, click, measure.")
    opened = open_store()
    address = Address()
    routings = measured_routings(opened)
    if routings and _compared(address) == _ROUTINGS:
        routing_section(address, routings)
        return
    chosen = choose_evaluation(opened, address)
    options = _options(address, chosen)
    timing = choose_timing(opened, address, chosen, options.cost)
    found = joined(opened, chosen, timing)
    chosen = found.chosen
    labels = _labels(chosen)
    spec: FigureSpec = _spec(
        chosen, str(opened.home.root), opened.store.version, chosen.label, timing.key, astuple(options)
    )
    _figure(spec, labels)
    methods = options.methods or ()

    st.header(_AT.get(options.cost, "At one density"))
    st.fragment(read_out_section)(opened, found, timing, methods, options.quality, options.cost)
    latency_result(opened)
    st.header("Within a budget")
    st.fragment(budget_section)(chosen, methods, options.cost)
    st.header("Measure a point")
    measure_section(opened, chosen)
    st.header("Compare points")
    picked = address.several(
        "Points",
        list(labels.values()),
        "points",
        placeholder="Click points in the figure (shift adds), or choose here",
    )
    cells = [cell for cell, label in labels.items() if label in picked]
    if cells:
        point_cards(opened, chosen.points[chosen.points["cell_id"].isin(cells)])
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)
        st.markdown(model_note(str(chosen.keys["model"])))


def _labels(chosen: Chosen) -> dict[str, str]:
    """Return each cell's name, each name once."""
    main = main_precision(chosen.points)
    rows = chosen.points[["cell_id", "policy", "settings", "dtype"]].itertuples(index=False)
    labels = {
        str(cell): point_label(str(policy), str(settings)) + ("" if dtype == main else f" · {dtype}")
        for cell, policy, settings, dtype in rows
    }
    seen = Counter(labels.values())
    return {cell: label if seen[label] == 1 else f"{label} ({cell[:6]})" for cell, label in labels.items()}


draw(page)
