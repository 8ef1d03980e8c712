"""Measured speed on the Trade-offs page: which timings count, int8 beside, and the points that have them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import streamlit as st

from backend.figures.interpolation import Windows
from backend.figures.metrics import SPEED
from backend.figures.speed import FLOAT, INT8, Setup, beside, setups, with_speed
from backend.results import queries
from pages._shared.address import Address
from pages._shared.evaluation import Chosen, evaluation
from pages._shared.store import OpenStore, evaluations, latencies, windows


@dataclass(frozen=True)
class Timing:
    """Which timings are joined with the points.

    Attributes:
        setup: On what and how they were taken, None if there are none of this model.
        int8: The int8 evaluation on the same windows stands beside.
    """

    setup: Setup | None
    int8: bool = False

    @property
    def key(self) -> str:
        """Names it in caches."""
        return f"{'' if self.setup is None else self.setup.label}|{self.int8}"


@dataclass(frozen=True)
class Joined:
    """An evaluation with the measured speeds of its points, and the windows of all points."""

    chosen: Chosen
    windows: Windows


def choose_timing(opened: OpenStore, address: Address, chosen: Chosen, cost: str) -> Timing:
    """Show the controls of measured speed where it is the cost, and return what they say."""
    table = latencies(opened)
    known = setups(table[table["model_sha256"] == chosen.keys["model_sha256"]])
    if cost != SPEED:
        return Timing(known[0] if known else None)
    setup = known[0] if known else None
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if len(known) > 1:
            labels = [each.label for each in known]
            label = address.choice(
                "Timed on", labels, "timing", width=520, help="Speeds of one machine and one way of timing"
            )
            setup = known[labels.index(label)]
        int8 = _int8_place(opened, chosen) is not None and address.toggle(
            "With int8", "int8", help="The same text with linear weights in 8 bits: perplexity and ΔNLL"
        )
    return Timing(setup, int8)


def joined(opened: OpenStore, chosen: Chosen, timing: Timing) -> Joined:
    """Return the evaluation's points with their measured speeds, and int8's beside them if asked for."""
    made: Joined = _joined(
        opened, chosen, timing, str(opened.home.root), opened.store.version, chosen.label, timing.key
    )
    return made


def timed_only(points: pd.DataFrame, cost: str) -> pd.DataFrame:
    """Return the points that stand on the cost's axis: all, or those with a measured speed."""
    return points[points[SPEED].notna()] if cost == SPEED else points


def _join(
    _opened: OpenStore, _chosen: Chosen, _timing: Timing, root: str, version: int, label: str, timing: str
) -> Joined:
    points = _chosen.points
    found = windows(_opened, tuple(points["cell_id"]))
    if _timing.int8 and (place := _int8_place(_opened, _chosen)) is not None:
        other = evaluation(_opened, evaluations(_opened), place, INT8).points
        points, found = beside(points, _with_losses(_opened, points), other, _with_losses(_opened, other))
    points = with_speed(points, latencies(_opened), _timing.setup)
    return Joined(replace(_chosen, points=points), found)


_joined = st.cache_resource(_join, show_spinner=False, max_entries=16)


def _with_losses(opened: OpenStore, points: pd.DataFrame) -> dict[str, pd.DataFrame]:
    cells = tuple(points["cell_id"])
    return {**windows(opened, cells), "nll": queries.window_values(opened.store, cells, "nll")}


def _int8_place(opened: OpenStore, chosen: Chosen) -> int | None:
    """Return where the int8 evaluation of the same model and windows stands in the table, None if nowhere."""
    if chosen.keys["dtype"] != FLOAT:
        return None
    wanted = chosen.keys | {"dtype": INT8}
    for place, row in enumerate(evaluations(opened).to_dict("records")):
        if all(row[key] == wanted[key] for key in _SAME):
            return place
    return None


_SAME = ("model_sha256", "text_sha256", "tokens", "window", "stride", "dtype")
