"""Measured decoding on the page "DIP and memory": the roofline, and where a token's time goes."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.figures.curves import title_of
from backend.figures.latency import MB, roofline, time_parts, touched
from backend.figures.speed import of_setup, setups
from pages._shared.address import Address
from pages._shared.figures import show_figure
from pages._shared.store import OpenStore, latencies

_NONE = (
    "No latency is stored. `python -m backend latency --policy dip --set density=0.5` measures one in about "
    "a minute; the Runs page composes a sweep of them."
)


def latency_section(opened: OpenStore, address: Address) -> None:
    """Show what was measured of one model on one machine: figures, and the table beside them."""
    table = latencies(opened)
    if table.empty:
        st.info(_NONE, icon=":material/timer:")
        return
    timed = _chosen(address, table)
    st.markdown(f"Batch-one decoding of **{timed['model'].iloc[-1]}** on **{timed['machine'].iloc[0]}**.")
    show_figure(roofline(timed), "roofline", height=430)
    st.dataframe(
        _shares(timed),
        hide_index=True,
        key="roofline_table",
        alt="Measured speeds and shares of the limit",
        column_config={"Point": st.column_config.Column(pinned=True)},
    )
    st.caption(
        "The share of the limit is against the bandwidth measured beside the point's own rounds; the line in "
        "the figure is the best of all runs. Dense without a timing of its own is the others' median."
    )
    _parts(address, timed)


def _chosen(address: Address, table: pd.DataFrame) -> pd.DataFrame:
    """Return the latencies of the model and setup chosen with a control, if there is a choice."""
    found: dict[str, pd.DataFrame] = {}
    by_count = sorted((group for _, group in table.groupby("model_sha256")), key=len, reverse=True)
    for group in by_count:
        for setup in setups(group):
            label = f"{group['model'].iloc[-1]} · {setup.label}"
            if label in found:
                label = f"{label} ({group['model_sha256'].iloc[0][:6]})"
            found[label] = of_setup(group, setup)
    labels = list(found)
    chosen = address.choice("Timed on", labels, "timing") if len(labels) > 1 else labels[0]
    return found[chosen]


def _shares(timed: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "Point": point.label,
                "Tokens/s ↑": f"{point.tokens_per_s:.1f}"
                + ("" if point.spread is None else f" ± {point.spread:.1f}"),
                "Over dense ↑": f"{point.speedup:.2f} ×",
                "MB/token ↓": f"{point.bytes / MB:.1f}",
                "Share of the limit ↑": f"{100 * point.share:.0f} %",
            }
            for point in touched(timed)
        ]
    )


def _parts(address: Address, timed: pd.DataFrame) -> None:
    pairs = list(dict.fromkeys(zip(timed["policy"], timed["dtype"], strict=True)))
    pairs.sort(key=lambda pair: (pair[0] != "dip", pair[0] == "dense", pair[1]))
    labels = {f"{title_of(policy)}, {dtype}": (policy, dtype) for policy, dtype in pairs}
    policy, dtype = labels[address.choice("Where a token's time goes", list(labels), "parts", width=330)]
    spec = time_parts(timed, policy, dtype)
    show_figure(spec, "token_parts", height=150 + 40 * len(spec.y.ticks), paper=(5.5, 2.4))
