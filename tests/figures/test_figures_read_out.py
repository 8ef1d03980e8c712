from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.figures import Feasible, best_within_budget, lowest, read_out
from backend.figures.curves import curves, dense_point
from backend.figures.interpolation import window_counts
from backend.figures.read_out import MethodReading
from backend.sparsity import make_policy
from tests.figures.conftest import Sample
from tests.figures.figures_samples import window_losses


def reading(sample: Sample, policy: str, at: float, **more: Any) -> MethodReading:
    return next(r for r in read_out(sample.points, sample.windows, at, **more) if r.curve.policy == policy)


def pchip_reference(x: list[float], y: list[float], at: float) -> float:
    """Monotone cubic interpolation by Fritsch and Carlson's formulas, one knot after the other."""
    gaps = [b - a for a, b in pairwise(x)]
    slopes = [(y[i + 1] - y[i]) / gaps[i] for i in range(len(gaps))]

    def end(h0: float, h1: float, s0: float, s1: float) -> float:
        d = ((2 * h0 + h1) * s0 - h0 * s1) / (h0 + h1)
        if d * s0 <= 0:
            return 0.0
        return 3 * s0 if s0 * s1 <= 0 and abs(d) > 3 * abs(s0) else d

    if len(x) == 2:
        return y[0] + slopes[0] * (at - x[0])
    derivative = [end(gaps[0], gaps[1], slopes[0], slopes[1])]
    for i in range(1, len(gaps)):
        if slopes[i - 1] * slopes[i] <= 0:
            derivative.append(0.0)
        else:
            w1, w2 = 2 * gaps[i] + gaps[i - 1], gaps[i] + 2 * gaps[i - 1]
            derivative.append((w1 + w2) / (w1 / slopes[i - 1] + w2 / slopes[i]))
    derivative.append(end(gaps[-1], gaps[-2], slopes[-1], slopes[-2]))
    i = max(index for index in range(len(gaps)) if x[index] <= at)
    h, t = gaps[i], (at - x[i]) / gaps[i]
    return (
        (1 + 2 * t) * (1 - t) ** 2 * y[i] + t * (1 - t) ** 2 * h * derivative[i]
        + t * t * (3 - 2 * t) * y[i + 1] + t * t * (t - 1) * h * derivative[i + 1]
    )  # fmt: skip


def test_a_stored_point_is_read_as_it_is(sample: Sample) -> None:
    row = sample.points[
        (sample.points["policy"] == "dip") & np.isclose(sample.points["mlp_density"], 0.5)
    ].iloc[0]
    found = reading(sample, "dip", 0.501)
    assert (found.state, found.cell, found.x) == ("measured", row["cell_id"], row["mlp_density"])
    assert found.delta_nll is not None
    assert found.perplexity is not None
    assert found.delta_nll.value == pytest.approx(row["delta_nll"], rel=1e-12)
    assert found.delta_nll.stderr == pytest.approx(row["delta_nll_stderr"], rel=1e-12)
    assert found.perplexity.value == pytest.approx(row["perplexity"], rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(at=st.floats(0.31, 0.99))
def test_between_points_each_window_is_interpolated_and_then_averaged(sample: Sample, at: float) -> None:
    found = reading(sample, "dip", at)
    if found.state == "measured":
        return
    curve = next(c for c in curves(sample.points) if c.policy == "dip")
    dense = dense_point(sample.points)
    assert dense is not None
    x = [*curve.points["mlp_density"], 1.0]
    cells = [*curve.points["cell_id"], dense["cell_id"]]
    table = sample.windows["delta_nll"].loc[cells]
    by_window = [pchip_reference(x, list(table[window]), at) for window in table.columns]
    mean = sum(by_window) / len(by_window)
    spread = math.sqrt(sum((v - mean) ** 2 for v in by_window) / (len(by_window) - 1) / len(by_window))
    assert found.state == "interpolated"
    assert found.delta_nll is not None
    assert found.delta_nll.value == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert found.delta_nll.stderr == pytest.approx(spread, rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(at=st.floats(0.31, 0.99))
def test_an_interpolated_value_lies_between_its_neighbours(sample: Sample, at: float) -> None:
    found = reading(sample, "dip", at)
    curve = next(c for c in curves(sample.points) if c.policy == "dip")
    below = curve.points[curve.points["mlp_density"] <= at + 0.002]["delta_nll"].min()
    above = curve.points[curve.points["mlp_density"] >= at - 0.002]["delta_nll"].max()
    assert found.delta_nll is not None
    assert (0.0 if np.isnan(above) else above) - 1e-12 <= found.delta_nll.value <= below + 1e-12


def test_the_difference_to_a_reference_is_paired(sample: Sample) -> None:
    found = reading(sample, "gate_pruning", 0.65, reference="dip")
    mine = reading(sample, "gate_pruning", 0.65).delta_nll
    theirs = reading(sample, "dip", 0.65).delta_nll
    assert found.against is not None
    assert mine is not None
    assert theirs is not None
    assert found.against.value == pytest.approx(mine.value - theirs.value)
    assert found.against.stderr is not None
    assert mine.stderr is not None
    assert theirs.stderr is not None
    assert found.against.stderr <= mine.stderr + theirs.stderr
    assert reading(sample, "dip", 0.65, reference="dip").against is None


@pytest.mark.parametrize(
    ("policy", "at", "state"),
    [
        ("glu_pruning", 0.5, "cannot reach"),
        ("glu_pruning", 0.70, "not measured"),
        ("gate_pruning", 0.2, "cannot reach"),
        ("dip", 0.2, "not measured"),
        ("dip", 0.95, "interpolated"),
        ("random", 0.95, "interpolated"),
    ],
)
def test_a_value_that_is_not_there_is_not_made_up(sample: Sample, policy: str, at: float, state: str) -> None:
    found = reading(sample, policy, at)
    assert found.state == state
    assert (found.delta_nll is None) == (state in ("cannot reach", "not measured"))


@pytest.mark.parametrize(
    ("cost", "at"), [("model_density", 0.4 + 0.6 * 0.6), ("bytes_per_token", 500 * 0.76)]
)
def test_the_floor_is_known_on_every_axis(sample: Sample, cost: str, at: float) -> None:
    assert reading(sample, "glu_pruning", at, cost=cost).state == "cannot reach"
    assert reading(sample, "dip", at, cost=cost).state == "interpolated"


def test_an_own_setting_is_a_point_and_no_curve(sample: Sample) -> None:
    points = sample.points.copy()
    dip = points["policy"] == "dip"
    free = points[dip].head(1).assign(cell_id="free", settings='{"input_keep":0.5,"neuron_keep":0.5}')
    points = pd.concat([points, free])
    own = [c for c in curves(points) if c.policy == "dip" and not c.swept]
    assert [c.label for c in own] == ["DIP (own settings)"]
    states = {r.curve.key: r.state for r in read_out(points, sample.windows, 0.6)}
    assert states["dip"] == "interpolated"
    assert states[own[0].key] == "not measured"


def test_only_the_newest_version_of_a_method_counts(sample: Sample) -> None:
    old = sample.points[sample.points["policy"] == "dip"].assign(policy_version=0, cell_id="old")
    found = curves(pd.concat([sample.points, old]))
    assert all("old" not in set(c.points["cell_id"]) for c in found)


@pytest.mark.parametrize("budget", [0.005, 0.01, 0.05, 0.3, 2.0])
def test_the_budget_names_the_cheapest_point_that_keeps_it(sample: Sample, budget: float) -> None:
    dense = dense_point(sample.points)
    assert dense is not None
    for feasible in best_within_budget(sample.points, budget):
        points = feasible.curve.points
        held = [
            row for _, row in points.iterrows() if row["perplexity"] <= dense["perplexity"] * (1 + budget)
        ]
        cheapest = min(held, key=lambda row: row["mlp_density"], default=None)
        assert feasible.cell == ("" if cheapest is None else cheapest["cell_id"])
        if feasible.crossing is not None:
            assert feasible.x is None or feasible.crossing <= feasible.x
            mean = np.mean(window_losses(make_policy(feasible.curve.policy, {_setting(feasible): 0.5})))
            half = make_policy(feasible.curve.policy, {_setting(feasible): 0.5}).expected_density()
            assert half is not None
            exact = 1 - math.sqrt(math.log(1 + budget) / (mean / (1 - half) ** 2))
            assert feasible.crossing == pytest.approx(exact, abs=0.03)


def _setting(feasible: Feasible) -> str:
    return "density" if feasible.curve.policy == "dip" else "keep"


def test_equal_costs_are_told_apart_by_quality(sample: Sample) -> None:
    found = [f for f in best_within_budget(sample.points, 0.3) if f.cell]
    best = lowest(found, "mlp_density", sample.points)
    assert best.x is not None
    assert best.x == min(f.x for f in found if f.x is not None)


def test_window_counts_are_those_of_the_evaluation() -> None:
    assert window_counts(256, 64, 64) == [63] * 4
    assert window_counts(256, 64, 32) == [63, 32, 32, 32]
