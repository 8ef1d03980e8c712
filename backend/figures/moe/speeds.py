"""Measured decoding with experts loaded from disk: tokens a second against the share that is in memory."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from backend.figures.moe.policies import policy_title
from backend.figures.palette import style_of
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series


def speed_figure(rows: pd.DataFrame, label: str) -> FigureSpec:
    """Return tokens a second against the share of experts in memory.

    Args:
        rows: Rows of :func:`backend.results.routing.store_speeds`, of one model, at least one.
        label: The model's name for people.
    """
    titles = [_title(row) for _, row in rows.iterrows()]
    series = []
    for title in dict.fromkeys(titles):
        chosen = rows[[each == title for each in titles]].sort_values("cached_share")
        policy = str(chosen.iloc[0]["policy"])
        spread = chosen["ms_per_token_median_stderr"] / chosen["ms_per_token_median"] * chosen["tokens_per_s"]
        series.append(
            Series(
                name=policy,
                label=title,
                style=style_of(policy),
                x=tuple((100 * chosen["cached_share"]).tolist()),
                y=tuple(chosen["tokens_per_s"].tolist()),
                y_err=tuple(None if pd.isna(each) else float(each) for each in spread),
                ids=tuple(chosen["cell_id"]),
                details=tuple(_detail(title, row) for _, row in chosen.iterrows()),
            )
        )
    resident = 1e3 / float(rows["resident_ms_per_token_median"].median())
    machines = sorted(set(rows["machine"]))
    highest = max(resident, float(rows["tokens_per_s"].max()))
    return FigureSpec(
        title=f"Measured speed against experts in memory, {label}",
        x=Axis(label="Experts in memory", unit="% of routed experts", better="lower", range=(0.0, 102.0)),
        y=Axis(label="Tokens per second", unit="measured", better="higher", range=(0.0, 1.08 * highest)),
        series=tuple(series),
        baselines=(Baseline(value=resident, label="all experts in memory"),),
        note=f"Measured at batch one on {'; '.join(machines)}, in turns with all experts in memory (line: "
        "median of cells). Bars: ± one standard error over rounds.",
        provenance=Provenance(
            runs=tuple(sorted(set(rows["run_id"]))),
            filters={"model": label, "machine": "; ".join(machines)},
            how=("measured",),
            methods=tuple(sorted(set(rows["policy"]))),
        ),
    )


def _title(row: pd.Series) -> str:
    asked: dict[str, Any] = json.loads(row["evaluation"])
    settings: dict[str, Any] = json.loads(row["settings"])
    rule = str(settings.get("eviction") or asked.get("eviction") or "lru").upper()
    more = ", one cache for all" if asked.get("scope") == "global" else ""
    more += "" if asked.get("direct", True) else ", through the page cache"
    return f"{policy_title(str(row['policy']), settings)}, {rule}{more}"


def _detail(title: str, row: pd.Series) -> str:
    disturbed = "\nDisturbed by other programs" if row["disturbed_rounds"] else ""
    return (
        f"{title}\n{row['tokens_per_s']:.3g} tokens/s, {row['cached_share']:.0%} in memory\n"
        f"×{row['speed_of_resident']:.2f} of all in memory; miss rate {row['miss_rate']:.1%}{disturbed}"
    )
