"""Sparse activation: which metric chooses neurons best, and how much of that is the label."""

from __future__ import annotations

from typing import Any, get_args

import pandas as pd
import streamlit as st

from backend.figures.sparse_activation import (
    AXES,
    PROTOCOLS,
    ROLES,
    SHOWN,
    UNITS,
    Across,
    Protocol,
    alike_map,
    claim_gap,
    label_control,
    metric_curves,
    with_variants,
)
from pages._shared.activation_data import Model, Stored, points_of, stored, verdicts_of
from pages._shared.activation_missing import missing
from pages._shared.activation_verdict import show_verdict
from pages._shared.address import Address
from pages._shared.evaluation import model_note
from pages._shared.figures import show_figure
from pages._shared.navigation import draw
from pages._shared.store import OpenStore, open_store

_HOW = r"""
- A **unit** is an MLP neuron, $x_i = \mathrm{act}(W_g y)_i \cdot (W_u y)_i$; the
  $k = \max(1, \mathrm{round}(\rho n))$ with the largest score are kept, per token and layer. With
  $F = \log p(\text{label})$ and $g = \partial F / \partial x$ at the token's own position: **magnitude**
  $|x_i|$, **GxO** $g_i x_i$, **SNIP** $|g_i x_i|$, **corrected GxO**
  $g_i x_i + \tfrac12 |x_i| \lVert g \rVert_2$. Equations of all are on the page Methods.
- **The label leaks.** The paper's mask is made of the gradient of the very token that is scored, the dense
  model's own greedy choice, so a sparse model is led to that choice. The **wrong-label** controls make the
  mask in the same way for the dense model's second choice, or for a random token: what is lost is what the
  label gave. Agreement is flattered by the label; KL and the loss on the true text are not, or less.
- An **oracle** needs a dense pass of the very token it would accelerate: it saves no time, with or without a
  label. Only **realisable** methods can be built, and only they get a latency.
- **BLEU** (effective order, so that short answers count) and **ROUGE-L** compare with the dense model's own
  answer, not with a true one. **ΔNLL** is the loss on the dense answer (protocols A and C) or on the text
  (B), minus the dense model's. Densities are measured from the masks that ran.
- **Rank correlation** (Spearman's ρ) and **overlap** of the kept sets are per token, against $|x_i|$ of the
  same dense pass, averaged over tokens.
- `python -m backend verdict` prints the sentence on top, with `--json` its numbers.
- Source: Song et al., "Achieving Sparse Activation in Small Language Models",
  [arXiv 2406.06562](https://arxiv.org/abs/2406.06562); controls and label-free variants are ours.
"""
_SHARES = tuple(f"0.{tenth}" for tenth in range(1, 10))
_ALIKE = {"Rank correlation": "rank_correlation", "Overlap of the kept": "top_overlap"}
_KINDS = {role.capitalize(): role for role in ROLES}


def page() -> None:
    """Draw the page."""
    st.title("Sparse activation")
    st.markdown("Which metric chooses the neurons to keep, and how much of its success is the label it sees.")
    opened = open_store()
    address = Address()
    found = stored(opened)
    models = {model.label: model for model in found.models()}
    model = models[address.choice("Model", list(models), "model", width=320)]
    verdicts = verdicts_of(opened, model)
    show_verdict(verdicts, model.name)
    if verdicts:
        st.header("The gap to the claim")
        gap = claim_gap(verdicts, model.name)
        height = 110 + 30 * len(gap.y.ticks)
        show_figure(gap, "gap", height=height, legend=False, paper=(5.5, 2.8))
    st.header("Metric against ratio")
    protocol = _protocol(address)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        points = _points(opened, address, found, protocol, model)
        metric = _metric(address, protocol)
        units = _units(address, points)
        across, log = _axes(address)
    _curves(address, protocol, metric, points, units, across, log)
    if "wrong label" in protocol.roles:
        st.header("What the label gives")
        _labels(address, protocol, metric, points)
    st.header("Rankings beside magnitude, layer by layer")
    _alike(address, found, model)
    missing(opened, model)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)
        st.markdown(model_note(model.name))


def _protocol(address: Address) -> Protocol:
    name = address.segments(
        "Protocol", list(PROTOCOLS), "protocol", default=next(iter(PROTOCOLS)),
        help="Numbers of two protocols never share a figure.",
    )  # fmt: skip
    st.markdown(PROTOCOLS[name].says)
    return PROTOCOLS[name]


def _points(
    opened: OpenStore, address: Address, found: Stored, protocol: Protocol, model: Model
) -> pd.DataFrame | None:
    """Return the points of the evaluation that is chosen, None if the protocol was not measured."""
    evaluations: dict[str, dict[str, Any]] = found.evaluations(protocol, model)
    if not evaluations:
        return None
    label, key = ("Text and windows", "windows") if protocol.form is None else ("Questions", protocol.form)
    return points_of(opened, evaluations[address.choice(label, list(evaluations), key, width=400)])


def _metric(address: Address, protocol: Protocol) -> str:
    """Return the metric that is chosen; answers and texts have controls of their own."""
    names = {SHOWN[name].label: name for name in protocol.metrics}
    key = {"forced": "metric", "free": "free_metric", None: "text_metric"}[protocol.form]
    return names[address.choice("Metric (vertical)", list(names), key, width=260)]


def _units(address: Address, points: pd.DataFrame | None) -> str:
    """Return what is kept or dropped; there is a choice where more than neurons were measured."""
    there = {"mlp"} if points is None else {"mlp", *(each.units for each in with_variants(points)["variant"])}
    names = {title: units for units, title in UNITS.items() if units in there}
    if len(names) == 1:
        return "mlp"
    return names[address.choice("Units", list(names), "units", width=180, help="What is kept or dropped.")]


def _axes(address: Address) -> tuple[Across, bool]:
    """Return what lies across, and whether the vertical axis is logarithmic."""
    names: dict[str, Across] = {AXES[name].label: name for name in get_args(Across)}
    across = address.choice(
        "Horizontal", list(names), "across", width=200,
        help="Compare methods of different kinds at equal density, not at equal share kept.",
    )  # fmt: skip
    return names[across], address.toggle("Log", "log", help="Logarithmic vertical axis; zeros are left out")


def _curves(
    address: Address,
    protocol: Protocol,
    metric: str,
    points: pd.DataFrame | None,
    units: str,
    across: Across,
    log: bool,
) -> None:
    kinds = address.several(
        "Kinds", list(_KINDS), "kinds", default=list(_KINDS),
        help="What each number can be used for. No two kinds share a series.",
    )  # fmt: skip
    if points is None:
        st.info("This protocol is not stored for this model; the sweep that makes it is offered below.")
        return
    roles = {_KINDS[kind] for kind in kinds} & set(protocol.roles)
    spec = metric_curves(points, metric, protocol.title, roles=roles, units=units, across=across, log=log)
    if spec.series:
        show_figure(spec, "curves", height=560)
    else:
        st.info(f"No point of these kinds is stored for this protocol: {', '.join(kinds) or 'none chosen'}.")


def _labels(address: Address, protocol: Protocol, metric: str, points: pd.DataFrame | None) -> None:
    share = address.choice("Share of units kept", _SHARES, "keep", default="0.2", width=220)
    if points is None:
        st.info("This protocol is not stored for this model; the sweep that makes it is offered below.")
        return
    spec = label_control(points, metric, float(share))
    if any("wrong label" in series.label for series in spec.series):
        show_figure(spec, "labels", height=110 + 44 * len(spec.series), legend=False, paper=(5.5, 2.4))
    else:
        st.info(f"{protocol.name}: no wrong label was measured at a share of {share}.")


def _alike(address: Address, found: Stored, model: Model) -> None:
    chosen = _ALIKE[address.segments("Against magnitude", list(_ALIKE), "alike", default=next(iter(_ALIKE)))]
    values = found.layer_values(chosen, model)
    if values.empty:
        st.info("No rankings are stored for this model; the sweep that makes them is offered below.")
        return
    show_figure(alike_map(values, chosen), "alike_map", height=340, legend=False, paper=(5.5, 2.6))


draw(page)
