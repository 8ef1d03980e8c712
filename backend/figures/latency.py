"""Figures of measured decoding: tokens a second under the roofline, and where a token's time goes.

A decoding step at batch one is bound by memory: bytes that a token touches over the bandwidth is the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backend.figures.curves import point_label, title_of
from backend.figures.drawing.marks import GREY
from backend.figures.metrics import SPEED
from backend.figures.palette import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILLION,
    Style,
    beside_style,
    style_of,
)
from backend.figures.spec import Axis, FigureSpec, Provenance, Series
from backend.figures.speed import FLOAT

MB = 1e6
_PARTS = (
    ("MLP", "mlp_ms", VERMILLION),
    ("Attention", "attention_ms", BLUE),
    ("Head", "head_ms", GREEN),
    ("Overhead", "overhead_ms", ORANGE),
)
_REST = ("All but the MLP (not split)", "rest_ms", PURPLE)
_LIMIT = Style(colour=GREY, marker="circle", dash="dash")


@dataclass(frozen=True)
class Touched:
    """One point under the roofline.

    Attributes:
        policy: The method's name.
        settings: Its settings, as JSON.
        dtype: Precision of the weights.
        bytes: Bytes of weights, keys and values that a token reads.
        tokens_per_s: Measured speed.
        share: The achieved share of the bandwidth, from 0 to 1.
        speedup: Over dense in the same run.
        cell: The latency's cell, "" for the dense model beside others.
        spread: One standard error of the speed over rounds, None if there is none.
    """

    policy: str
    settings: str
    dtype: str
    bytes: float
    tokens_per_s: float
    share: float
    speedup: float
    cell: str
    spread: float | None = None

    @property
    def label(self) -> str:
        """Its name for people."""
        return point_label(self.policy, self.settings) + _aside(self.dtype)


def touched(timed: pd.DataFrame) -> list[Touched]:
    """Return the measured points and, for each precision, the dense model, which comes first.

    Args:
        timed: Latencies of one setup and model, as :func:`backend.figures.speed.of_setup` returns them.
    """
    found = []
    for _, group in timed.groupby("dtype", sort=True):
        if not (group["policy"] == "dense").any():
            found.append(_dense_of(group))
        group = group.sort_values("bytes_per_token", ascending=False, kind="stable")
        rows = [row for _, row in group.iterrows()]
        found += [_touched(row) for row in sorted(rows, key=lambda row: str(row["policy"]) != "dense")]
    return found


def roofline(timed: pd.DataFrame) -> FigureSpec:
    """Return tokens/s against bytes a token, under the limit of the bandwidth measured in the same runs.

    Args:
        timed: Latencies of one setup and model, at least one.
    """
    points = touched(timed)
    bandwidth = float(timed["bandwidth_bytes_per_s"].max())
    sizes = np.array([point.bytes for point in points])
    x_range = (float(sizes.min()) / MB / 1.35, float(sizes.max()) / MB * 1.35)
    speeds = [point.tokens_per_s for point in points]
    line = np.geomspace(*x_range, 25)
    limit = bandwidth / (line * MB)
    series = [
        Series(
            name="limit", label=f"Limit at {bandwidth / 1e9:.1f} GB/s, measured", style=_LIMIT, kind="curve",
            x=tuple(line.tolist()), y=tuple(limit.tolist()),
        )
    ]  # fmt: skip
    groups: dict[tuple[str, str], list[Touched]] = {}
    for point in points:
        groups.setdefault((point.policy, point.dtype), []).append(point)
    series += [_measured(policy, dtype, found) for (policy, dtype), found in groups.items()]
    return FigureSpec(
        title="Measured speed under the roofline",
        x=Axis(label="Weights and KV cache read", unit="MB/token", better="lower", log=True, range=x_range),
        y=Axis(
            label="Measured speed", unit="tokens/s", better="higher", log=True,
            range=(min(speeds) / 1.4, max(*speeds, float(limit.max())) * 1.2),
        ),
        series=tuple(series),
        note="Limit: bandwidth of a plain read, the best of these runs, over bytes. "
        "Bars: ± one standard error over rounds; hidden where the marker is larger.",
        provenance=_provenance(timed),
    )  # fmt: skip


def time_parts(timed: pd.DataFrame, policy: str, dtype: str) -> FigureSpec:
    """Return where a token's time goes, one bar for dense and one a stored point of a method.

    Args:
        timed: Latencies of one setup and model.
        policy: The method.
        dtype: The precision.
    """
    same = timed[timed["dtype"] == dtype]
    rows: list[dict[Any, Any]] = [_dense_parts(same)]
    method = same[same["policy"] == policy].sort_values("mlp_density", ascending=False, kind="stable")
    if policy != "dense":
        rows += [row.to_dict() for _, row in method.iterrows()]
    rows = rows[::-1]  # the first one on top
    series = []
    for label, column, colour in (*_PARTS, _REST):
        known = [
            (place, float(row[column])) for place, row in enumerate(rows) if pd.notna(row.get(column, None))
        ]
        if not known:
            continue
        series.append(
            Series(
                name=column, label=label, kind="bar",
                style=Style(colour=colour, marker="square", dash="solid"),
                x=tuple(ms for _, ms in known), y=tuple(float(place) for place, _ in known),
                details=tuple(f"{label}: {ms:.3g} ms/token" for _, ms in known),
            )
        )  # fmt: skip
    labels = [point_label(str(row["policy"]), str(row["settings"])) for row in rows]
    return FigureSpec(
        title=f"Where a token's time goes: {title_of(policy)}, {dtype}",
        x=Axis(label="Time", unit="ms/token", better="lower"),
        y=Axis(
            label="", range=(-0.6, len(rows) - 0.4),
            ticks=tuple((float(place), label) for place, label in enumerate(labels)),
        ),
        series=tuple(series),
        note="Medians of each part over all timed tokens; they need not add up to the median token.",
        provenance=_provenance(method if len(method) else same),
    )  # fmt: skip


def _touched(row: pd.Series) -> Touched:
    relative = float(row["ms_per_token_median_stderr"] / row["ms_per_token_median"])
    spread = None if pd.isna(relative) else float(row[SPEED]) * relative
    return Touched(
        str(row["policy"]), str(row["settings"]), str(row["dtype"]),
        float(row["bytes_per_token"] + row["kv_bytes_per_token"]), float(row[SPEED]),
        float(row["bandwidth_share"]), float(row["speedup"]), str(row["cell_id"]), spread,
    )  # fmt: skip


def _dense_of(group: pd.DataFrame) -> Touched:
    """Return the dense model as it ran beside the others: medians over their runs."""
    ms = group["dense_ms_per_token_median"]
    rate = group["dense_bandwidth_share"] * group["bandwidth_bytes_per_s"]
    read = float((rate * ms / 1e3).median())
    share = float(group["dense_bandwidth_share"].median())
    return Touched("dense", "{}", str(group["dtype"].iloc[0]), read, 1e3 / float(ms.median()), share, 1.0, "")


def _measured(policy: str, dtype: str, points: list[Touched]) -> Series:
    style = style_of(policy)
    return Series(
        name=f"{policy}@{dtype}",
        label=title_of(policy) + _aside(dtype),
        style=beside_style(style) if dtype != FLOAT else style,
        kind="markers",
        x=tuple(point.bytes / MB for point in points),
        y=tuple(point.tokens_per_s for point in points),
        y_err=tuple(point.spread for point in points),
        ids=tuple(point.cell for point in points),
        details=tuple(
            f"{point.label}\n{point.tokens_per_s:.1f} tokens/s, {point.speedup:.2f} × dense\n"
            f"{point.bytes / MB:.1f} MB/token\n{100 * point.share:.0f} % of the bandwidth beside it"
            for point in points
        ),
    )


def _aside(dtype: str) -> str:
    return "" if dtype == FLOAT else f", {dtype}"


def _dense_parts(same: pd.DataFrame) -> dict[Any, Any]:
    """Return the parts of a dense token: of its own timing, else the MLP and the rest, as beside others."""
    own = same[same["policy"] == "dense"]
    if len(own):
        parts: dict[Any, Any] = own.iloc[-1].to_dict()
        return parts
    whole = float(same["dense_ms_per_token_median"].median())
    mlp = float(same["dense_mlp_ms"].median())
    return {"policy": "dense", "settings": "{}", "mlp_ms": mlp, "rest_ms": whole - mlp}


def _provenance(timed: pd.DataFrame) -> Provenance:
    first = timed.iloc[0]
    names = ("model", "model_sha256", "machine", "prompt", "tokens", "execution", "prefill")
    filters = {name: str(first[name]) for name in names}
    return Provenance(runs=tuple(sorted(set(timed["run_id"]))), filters=filters, how=("measured",))
