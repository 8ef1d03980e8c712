"""The label's influence: one metric at one ratio, under the right label and the wrong ones."""

from __future__ import annotations

import pandas as pd

from backend.figures.curves import title_of
from backend.figures.metrics import Metric
from backend.figures.sparse_activation.metric_curves import SHOWN
from backend.figures.sparse_activation.variants import LABELS, Variant, variants, with_variants
from backend.figures.spec import Axis, Baseline, FigureSpec, Series
from backend.figures.trade_off import provenance_of

LABEL_FREE = ("dense_magnitude", "expected_fisher", "random")
"""Methods without a label that stand beside the labels."""
_NEAR = 1e-6
_SHORT = {"own": "own token", "next": "true next token", "second": "second choice", "random": "random token"}
"""Labels in few words, where a row has to name another setting too."""


def label_control(
    points: pd.DataFrame, metric: str, keep: float, policy: str = "corrected_gxo", units: str = "mlp"
) -> FigureSpec:
    """Return one method's metric under each label, and label-free methods beside it, one row each.

    Args:
        points: Rows of one evaluation.
        metric: A name of ``SHOWN``.
        keep: The share of units kept.
        policy: The method whose label is exchanged.
        units: What is kept or dropped.

    Raises:
        UserError: The metric is unknown.
    """
    shown = SHOWN[metric]
    known = with_variants(points[points[metric].notna()])
    known = known[(known["keep"] - keep).abs() < _NEAR]
    compared = (policy, *LABEL_FREE)
    chosen = [each for each in variants(known) if each.policy in compared and each.units == units]
    rows = [(each, known[known["variant"] == each].iloc[-1]) for each in chosen]
    series = [_row(place, each, row, shown) for place, (each, row) in enumerate(rows)]
    ticks = tuple((float(place), _name(each, policy)) for place, (each, _) in enumerate(rows))
    return FigureSpec(
        title=f"{shown.label} of {title_of(policy)} by label, {keep:.0%} of units kept",
        x=Axis(label=shown.label, unit=shown.unit, better=shown.better),
        y=Axis(label="", ticks=ticks, range=(-0.5, max(0.5, len(rows) - 0.5))),
        series=tuple(series),
        baselines=() if shown.dense is None else (Baseline(value=shown.dense, label="Dense", axis="x"),),
        note=f"Rows named by a label are masks of {title_of(policy)} made for that label. Error bars: ± one "
        "standard error. With a wrong label the mask is made the same way, for a token that is not scored: "
        "what is lost is what the label gave.",
        provenance=provenance_of(known[known["variant"].isin(chosen)]),
    )


def _name(variant: Variant, policy: str) -> str:
    """Return the label where the method is the figure's own, so that a narrow chart has room."""
    if variant.policy != policy:
        return variant.title
    if variant.words:
        return f"{_SHORT[variant.label].capitalize()}, {variant.words}"
    return LABELS[variant.label].capitalize()


def _row(place: int, variant: Variant, row: pd.Series, metric: Metric) -> Series:
    one = row.to_frame().T
    value, error = float(metric.values(one).iloc[0]), float(metric.errors(one).iloc[0])
    return Series(
        name=variant.key,
        label=variant.title,
        style=variant.style,
        kind="markers",
        x=(value,),
        y=(float(place),),
        x_err=(None if error != error else error,),
        ids=(str(row["cell_id"]),),
        details=(f"{variant.title}\n{metric.label}: {metric.show(value, error)}",),
    )
