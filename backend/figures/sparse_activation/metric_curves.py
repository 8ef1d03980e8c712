"""Metric against ratio: every method and label of one protocol, with error bars."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import pandas as pd

from backend.figures.metrics import COST, Metric
from backend.figures.sparse_activation.variants import Role, Variant, variants, with_variants
from backend.figures.spec import Axis, Baseline, FigureSpec, Series
from backend.figures.trade_off import provenance_of
from backend.registry import Registry

Across = Literal["keep", "mlp_density", "model_density"]
AXES: dict[Across, Axis] = {
    "keep": Axis(
        label="Share of units kept", unit="for DIP, of MLP weights", better="lower", range=(0.0, 1.02)
    ),
    **{
        name: Axis(label=COST[name].label, unit=COST[name].unit, better="lower")
        for name in ("mlp_density", "model_density")
    },
}
"""What can lie across, by column: what was asked for, or what was read."""

SHOWN: Registry[Metric] = Registry("metric of sparse activation")
"""What the sparse-activation page can show, by column of the store's points."""

for _metric in (
    Metric("bleu", "BLEU", "0–100, against the dense answer", "higher", format="{:.1f}", dense=100.0),
    Metric("rouge_l", "ROUGE-L", "F1, against the dense answer", "higher", dense=1.0),
    Metric("token_agreement", "Token agreement", "share, with the dense answer", "higher", dense=1.0),
    Metric("agreement", "Top-1 agreement with dense", "share of tokens", "higher", dense=1.0),
    Metric("kl", "KL(dense‖sparse)", "nats/token", "lower", dense=0.0),
    Metric("delta_nll", "ΔNLL to dense", "nats/token", "lower", dense=0.0),
):
    SHOWN.add(_metric.name, _metric)


def metric_curves(
    points: pd.DataFrame,
    metric: str,
    title: str,
    *,
    roles: Collection[Role] | None = None,
    units: str | None = None,
    across: Across = "keep",
    log: bool = False,
) -> FigureSpec:
    """Return one metric against how sparse the model is, a series a method and label.

    Args:
        points: Rows of one evaluation: ``queries.answer_points`` or ``queries.points``.
        metric: A name of ``SHOWN``.
        title: What the protocol is, for the figure's title.
        roles: Only variants with these roles; None for all.
        units: Only variants that keep or drop these; None for all.
        across: What lies across: the share kept that was asked for, or a density that was measured.
        log: Logarithmic vertical axis (values of 0 and less are left out).

    Raises:
        UserError: The metric is unknown.
    """
    shown = SHOWN[metric]
    known = with_variants(points[points[metric].notna()])
    known = known[known[across].notna()]
    chosen = [
        each
        for each in variants(known)
        if (roles is None or each.role in roles) and units in (None, each.units)
    ]
    series = [_series(known[known["variant"] == each], each, shown, across, log) for each in chosen]
    drawn = known[known["variant"].isin(chosen)]
    return FigureSpec(
        title=f"{shown.label}, {title}",
        x=AXES[across],
        y=Axis(label=shown.label, unit=shown.unit, better=shown.better, log=log),
        series=tuple(each for each in series if each.x),
        baselines=() if shown.dense is None or log else (Baseline(value=shown.dense, label="Dense"),),
        note="Error bars: ± one standard error over questions or windows. "
        "A method that looks at a label says which; only realisable ones can be built.",
        provenance=provenance_of(drawn),
    )


def _series(rows: pd.DataFrame, variant: Variant, metric: Metric, across: Across, log: bool) -> Series:
    rows = rows.sort_values(across, kind="stable")
    if log:
        rows = rows[metric.values(rows) > 0]
    values, errors = metric.values(rows).tolist(), metric.errors(rows).tolist()
    return Series(
        name=variant.key,
        label=variant.title,
        style=variant.style,
        x=tuple(rows[across].astype(float).tolist()),
        y=tuple(values),
        y_err=tuple(None if error != error else error for error in errors),
        ids=tuple(rows["cell_id"]),
        details=tuple(
            f"{variant.title}\n{AXES[across].label}: {at:.3g}\n{metric.label}: {metric.show(value, error)}"
            for at, value, error in zip(rows[across], values, errors, strict=True)
        ),
    )
