"""Chosen points side by side: settings, everything measured, and with what; and what differs between them."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import streamlit as st

from backend.figures import point_label
from backend.figures.drawing.text import counted
from backend.results import queries
from backend.results.queries import StoredRun
from pages._shared.store import OpenStore

MOST = 6
"""Cards that are shown at once."""


def point_cards(opened: OpenStore, points: pd.DataFrame) -> None:
    """Show one card a point, and the differences of their settings first."""
    if len(points) > MOST:
        st.caption(f"The first {MOST} of {len(points)} chosen points.")
    rows = [row for _, row in points.head(MOST).iterrows()]
    runs = {str(row["run_id"]): queries.run(opened.store, str(row["run_id"])) for row in rows}
    facts = {_unique(row, rows): _facts(row, runs[str(row["run_id"])]) for row in rows}
    if len(rows) > 1:
        _differences(facts)
    for row, column in zip(rows, st.columns(max(2, min(3, len(rows))) if rows else 1) * 2, strict=False):
        with column, st.container(border=True):
            _card(opened, row, runs[str(row["run_id"])])


def _card(opened: OpenStore, row: pd.Series, run: StoredRun | None) -> None:
    st.markdown(f"**{point_label(row['policy'], row['settings'])}**")
    st.caption(f"Cell `{row['cell_id']}`, {row['at']:%d %b %Y %H:%M} UTC, {row['seconds'] or 0:.0f} s")
    found = queries.find(opened.store, str(row["cell_id"]))
    measured = found.measurements if found else []
    table = pd.DataFrame(
        {
            "Metric": [_words(m["metric"]) for m in measured],
            "Value": [_number(m["value"]) for m in measured],
            "How": [m["how"] for m in measured],
            "± stderr": [_number(m["stderr"]) for m in measured],
            "Unit": [m["unit"] or "–" for m in measured],
            "n": [f"{m['n']:,}" if m["n"] else "–" for m in measured],
        }
    )
    st.dataframe(table, hide_index=True, alt="Everything measured", key=f"card_{row['cell_id']}")
    if any(m["metric"] == "perplexity" for m in measured):
        st.caption(
            "± of NLL and perplexity is from window to window of the text, unpaired; that of ΔNLL is paired "
            "with dense, and it is the one that curves and tables show on perplexity."
        )
    for name, value in _facts(row, run).items():
        if name.startswith("run: "):
            st.caption(f"{name.removeprefix('run: ').capitalize()}: {value}")
    st.page_link(
        "pages/runs.py", label="Its run", icon=":material/open_in_new:", query_params={"run": row["run_id"]}
    )


def _differences(facts: dict[str, dict[str, str]]) -> None:
    table = pd.DataFrame(facts)
    differing = table[table.nunique(axis=1, dropna=False) > 1].fillna("–")
    if differing.empty:
        st.caption("Settings and provenance are the same.")
        return
    st.markdown("**What differs**")
    st.dataframe(
        differing.rename_axis("Setting"), alt="Settings that differ between the points", key="differences"
    )


def _facts(row: pd.Series, run: StoredRun | None) -> dict[str, str]:
    """Return a point's settings and provenance as flat text."""
    said: dict[str, Any] = {"method": row["policy"], "method version": row["policy_version"]}
    said |= json.loads(row["settings"])
    provenance = {} if run is None else run.provenance
    packages = provenance.get("packages", {})
    made = {
        "run": row["run_id"],
        "commit": (provenance.get("commit") or "unknown")[:12],
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()) or "unknown",
        "device": f"{provenance.get('device', 'unknown')}, {_threads(provenance)}",
        "processor": provenance.get("machine", {}).get("processor", "unknown"),
    }
    return {key: str(value) for key, value in said.items()} | {
        f"run: {key}": str(v) for key, v in made.items()
    }


def _threads(provenance: dict[str, Any]) -> str:
    known = provenance.get("threads")
    return "? threads" if known is None else counted(int(known), "thread")


def _unique(row: pd.Series, rows: list[pd.Series]) -> str:
    label = point_label(row["policy"], row["settings"])
    same = sum(point_label(other["policy"], other["settings"]) == label for other in rows)
    return label if same == 1 else f"{label} ({row['cell_id'][:6]})"


def _words(metric: str) -> str:
    words = metric.replace("_", " ").replace("delta nll", "ΔNLL").replace("nll", "NLL").replace("kl", "KL")
    return words.replace("mlp", "MLP")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1e5 else f"{value:.5g}"
