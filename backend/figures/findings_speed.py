"""The finding on measured speed: how much faster a method decodes than dense, and what it loses."""

from __future__ import annotations

import math

import pandas as pd

from backend.evaluation.statistics import Estimate
from backend.figures.curves import curves, dense_point, point_label
from backend.figures.findings import PAIRED_NOTE, SUBJECT, Finding, nats
from backend.figures.metrics import SPEED
from backend.figures.speed import setups, with_speed
from backend.figures.trade_off import TradeOffOptions, trade_off


def measured_speed(points: pd.DataFrame, latencies: pd.DataFrame, density: float) -> Finding | None:
    """Say how fast the method decodes at about one density, from a stored point with a stored latency.

    Args:
        points: Rows of one evaluation.
        latencies: Rows as :func:`backend.results.latencies.latencies` returns them.
        density: The MLP density looked for; the nearest timed point speaks.

    Returns:
        The finding, None if no point of the method was timed with kernels that skip weights.
    """
    same = latencies[(latencies["model_sha256"] == points["model_sha256"].iloc[0])]
    known = [setup for setup in setups(same) if setup.execution == "gathered"]
    if not known:
        return None
    joined = with_speed(points, same, known[0])
    subject = next((curve for curve in curves(joined[joined[SPEED].notna()]) if curve.key == SUBJECT), None)
    dense = dense_point(joined)
    if subject is None or dense is None:
        return None
    row = subject.points.loc[(subject.points["mlp_density"] - density).abs().sort_values().index[0]]
    disturbed = " Rounds were disturbed by other programs." if row["disturbed_rounds"] > 0 else ""
    name = point_label(str(row["policy"]), str(row["settings"]))
    sentence = (
        f"{name} decodes {_spread(row, 'speedup')} × as fast as dense in the same run, {row[SPEED]:.0f} "
        f"tokens/s at batch one on {row['machine']} (measured), and loses {nats(_loss(row))} "
        f"nats/token.{disturbed}"
    )
    shown = joined[joined["policy"].isin([SUBJECT, "dense"]) & joined[SPEED].notna()]
    options = TradeOffOptions("delta_nll", SPEED, (SUBJECT,), view="Middle", front=False)
    spec = trade_off(shown, options)
    spec = spec.model_copy(
        update={
            "title": f"Measured speed of {subject.label} against its loss",
            "x": spec.x.model_copy(update={"label": "Speed", "unit": "tokens/s"}),
            "y": spec.y.model_copy(update={"label": "ΔNLL", "unit": "nats/token"}),
            "baselines": (),
            "note": f"{PAIRED_NOTE} Across: over rounds.",
        }
    )
    return Finding("Measured speed", sentence, spec)


def _spread(row: pd.Series, metric: str) -> str:
    stderr = row[f"{metric}_stderr"]
    return f"{row[metric]:.2f}" + ("" if pd.isna(stderr) else f" ± {stderr:.2f}")


def _loss(row: pd.Series) -> Estimate:
    stderr = float(row["delta_nll_stderr"])
    tokens = int(row["scored_tokens"])
    return Estimate(float(row["delta_nll"]), None if math.isnan(stderr) else stderr, tokens)
