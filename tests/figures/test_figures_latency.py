from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from backend.figures import FigureSpec, TradeOffOptions, best_within_budget, lowest, read_out, trade_off
from backend.figures import matplotlib_renderer as paper
from backend.figures.curves import curves, dense_point
from backend.figures.findings_speed import measured_speed
from backend.figures.interpolation import WINDOW_METRICS
from backend.figures.latency import MB, roofline, time_parts, touched
from backend.figures.metrics import SPEED
from backend.figures.palette import beside_style, style_of
from backend.figures.speed import Setup, Timed, beside, of_setup, setups, with_speed, without_speed
from backend.home import Home
from backend.results import Store, queries
from backend.results.latencies import COLUMNS, latencies
from backend.sparsity import METHODS
from tests.figures.figures_samples import MODEL, write_latencies, write_results
from tests.figures.test_figures_renderers import drawn_on_paper, drawn_on_screen

MACHINE = "test processor, 2 cores, cpu, 2 threads"


@dataclass(frozen=True)
class Timings:
    """Made-up points in two precisions, their windows, and latencies."""

    points: pd.DataFrame
    windows: dict[str, pd.DataFrame]
    int8: pd.DataFrame
    int8_windows: dict[str, pd.DataFrame]
    latencies: pd.DataFrame

    @property
    def joined(self) -> pd.DataFrame:
        return with_speed(self.points, self.latencies, setups(self.latencies)[0])


@pytest.fixture(scope="module", autouse=True)
def no_seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Made-up results alone: the seed has latencies of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backend.home.SEED", tmp_path_factory.mktemp("empty"))
        yield


@pytest.fixture(scope="module")
def timings(tmp_path_factory: pytest.TempPathFactory) -> Timings:
    home = write_latencies(write_results(Home.resolve(tmp_path_factory.mktemp("latency"))))
    with Store.in_memory(home) as store:
        tables = [queries.points(store, model=MODEL, kind="fidelity", dtype=d) for d in ("float32", "int8")]
        windows = [
            {m: queries.window_values(store, list(t["cell_id"]), m) for m in (*WINDOW_METRICS, "nll")}
            for t in tables
        ]
        return Timings(tables[0], windows[0], tables[1], windows[1], latencies(store))


def test_a_latency_says_on_which_machine_it_was_taken(timings: Timings) -> None:
    assert list(timings.latencies.columns) == list(COLUMNS)
    assert set(timings.latencies["machine"]) == {MACHINE}
    found = setups(timings.latencies)
    assert found[0] == Setup(MACHINE, 128, 128, "gathered", "dense")
    assert [each.execution for each in found] == ["gathered", "masked"]


def test_no_latency_is_an_empty_table_and_no_setup(tmp_path_factory: pytest.TempPathFactory) -> None:
    with Store.in_memory(Home.resolve(tmp_path_factory.mktemp("none"))) as store:
        table = latencies(store)
    assert list(table.columns) == list(COLUMNS)
    assert setups(table) == []


def test_points_are_joined_by_weights_policy_settings_and_precision(timings: Timings) -> None:
    joined = timings.joined
    assert list(joined["cell_id"]) == list(timings.points["cell_id"])
    for _, row in joined.iterrows():
        same = timings.latencies[
            (timings.latencies["policy"] == row["policy"])
            & (timings.latencies["settings"] == row["settings"])
            & (timings.latencies["dtype"] == row["dtype"])
            & (timings.latencies["execution"] == "gathered")
        ]
        if len(same):
            # Dense took the same time beside every made-up point, so nothing is scaled.
            assert row[SPEED] == pytest.approx(same[SPEED].iloc[0])
            spread = row[SPEED] * same["speedup_stderr"].iloc[0] / same["speedup"].iloc[0]
            assert row[f"{SPEED}_stderr"] == pytest.approx(spread)
        elif row["policy"] != "dense":
            assert math.isnan(row[SPEED])


def test_a_machine_that_drifts_between_cells_changes_no_comparison(timings: Timings) -> None:
    """One cell ran, with dense beside it, while the whole machine was 30 % faster."""
    drifted = timings.latencies.copy()
    lucky = drifted.index[drifted["policy"] == "gate_pruning"][0]
    for name in ("ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90", "dense_ms_per_token_median"):
        drifted.loc[lucky, name] *= 0.7
    drifted.loc[lucky, SPEED] /= 0.7
    same = with_speed(timings.points, drifted, setups(drifted)[0])
    pd.testing.assert_series_equal(same[SPEED], timings.joined[SPEED])
    pd.testing.assert_series_equal(same["ms_per_token_p90"], timings.joined["ms_per_token_p90"])


def test_dense_has_the_speed_it_had_beside_the_others(timings: Timings) -> None:
    dense = dense_point(timings.joined)
    assert dense is not None
    assert dense[SPEED] == pytest.approx(62.5)
    assert Timed.of(dense).range == "–"  # type: ignore[union-attr]


def test_another_version_or_machine_is_not_joined(timings: Timings) -> None:
    setup = setups(timings.latencies)[0]
    newer = timings.points.assign(policy_version=timings.points["policy_version"] + 1)
    assert with_speed(newer[newer["policy"] != "dense"], timings.latencies, setup)[SPEED].isna().all()
    elsewhere = Setup("another", 128, 128, "gathered", "dense")
    assert with_speed(timings.points, timings.latencies, elsewhere)[SPEED].isna().all()
    assert with_speed(timings.points, timings.latencies, None)[SPEED].isna().all()


def test_what_is_left_out_is_counted(timings: Timings) -> None:
    said = without_speed(timings.joined)
    assert said.startswith("16 points without a measured latency are left out")
    assert "`python -m backend latency`" in said
    assert "4 oracle points have no latency" in said


def test_the_front_of_speed_runs_from_the_fastest_to_dense(timings: Timings) -> None:
    spec = trade_off(timings.joined, TradeOffOptions(cost=SPEED))
    front = next(series for series in spec.series if series.name == "front")
    assert list(front.x) == sorted(front.x, reverse=True)
    assert list(front.y) == sorted(front.y, reverse=True)
    rows = timings.joined[timings.joined[SPEED].notna()]
    for x, y in zip(front.x, front.y, strict=True):  # nothing is as fast and better
        assert not ((rows[SPEED] > x * 1.005) & (rows["perplexity"] < y)).any()
    names = {series.name for series in spec.series}
    assert names == {"front", "dense", "dip", "gate_pruning"}
    assert spec.x.better == "higher"
    assert "4 oracle points have no latency" in spec.note
    assert any("p10–p90: 74.4–94.0 tokens/s" in detail for s in spec.series for detail in s.details)
    assert any("latency" in run for run in spec.provenance.runs)


def test_at_one_speed_each_method_gives_its_best_point_that_is_as_fast(timings: Timings) -> None:
    points = timings.joined[timings.joined[SPEED].notna()]
    found = {r.curve.key: r for r in read_out(points, timings.windows, 80.0, SPEED, "dip")}
    assert found["dip"].x == pytest.approx(89.2857, abs=1e-3)
    assert found["gate_pruning"].x == pytest.approx(86.8056, abs=1e-3)
    assert found["gate_pruning"].against is not None
    far = {r.curve.key: r.state for r in read_out(points, timings.windows, 100.0, SPEED)}
    assert far == {"dip": "measured", "gate_pruning": "cannot reach"}


def test_within_a_budget_the_fastest_wins(timings: Timings) -> None:
    points = timings.joined[timings.joined[SPEED].notna()]
    found = best_within_budget(points, 0.1, SPEED)
    best = lowest([f for f in found if f.cell], SPEED, points)
    assert best.curve.key == "dip"
    assert best.x == pytest.approx(76.2195, abs=1e-3)
    assert all(f.crossing is None for f in found)


def test_int8_stands_beside_with_differences_to_the_same_dense_model(timings: Timings) -> None:
    points, windows = beside(timings.points, timings.windows, timings.int8, timings.int8_windows)
    joined = with_speed(points, timings.latencies, setups(timings.latencies)[0])
    labels = [curve.label for curve in curves(joined)]
    assert len(labels) == len(set(labels))
    assert {"DIP", "DIP, int8", "Dense, int8"} <= set(labels)
    row = joined[(joined["policy"] == "dip") & (joined["dtype"] == "int8")].iloc[0]
    nll = np.array(timings.int8_windows["nll"].loc[row["cell_id"]])
    dense = timings.points.loc[timings.points["policy"] == "dense", "cell_id"].iloc[0]
    assert row["delta_nll"] == pytest.approx(float((nll - timings.windows["nll"].loc[dense]).mean()))
    assert math.isnan(row["kl"])
    assert windows["delta_nll"].loc[row["cell_id"]].tolist() == pytest.approx(
        (nll - timings.windows["nll"].loc[dense]).tolist()
    )
    found = dense_point(joined)
    assert found is not None
    assert found["dtype"] == "float32"
    spec = trade_off(joined, TradeOffOptions(cost=SPEED, methods=("dip",)))
    looks = {(s.style.colour, s.style.marker, s.style.dash) for s in spec.series if s.name != "front"}
    assert len(looks) == len(spec.series) - 1


def test_another_precision_has_a_look_of_its_own() -> None:
    every = [style_of(name) for name in METHODS]
    both = [*every, *(beside_style(style) for style in every)]
    assert len(set(both)) == 2 * len(every)


def test_the_roofline_is_bandwidth_over_bytes(timings: Timings) -> None:
    timed = of_setup(timings.latencies, setups(timings.latencies)[0])
    spec = roofline(timed)
    limit = spec.series[0]
    assert [x * y * MB for x, y in zip(limit.x, limit.y, strict=True)] == pytest.approx([30e9] * len(limit.x))
    for point in touched(timed):
        assert point.tokens_per_s * point.bytes == pytest.approx(point.share * 30e9)
    assert {"Dense", "DIP", "DIP, int8", "Dense, int8"} <= {series.label for series in spec.series}


def test_a_token_s_parts_come_from_the_store(timings: Timings) -> None:
    timed = of_setup(timings.latencies, setups(timings.latencies)[0])
    spec = time_parts(timed, "dip", "float32")
    assert [text for _, text in spec.y.ticks][-1] == "Dense"
    assert len(spec.y.ticks) == 5
    mlp = next(series for series in spec.series if series.label == "MLP")
    assert mlp.x[-1] == pytest.approx(9.6)
    rest = next(series for series in spec.series if "not split" in series.label)
    assert (rest.x, rest.y) == ((pytest.approx(6.4),), (4.0,))


@pytest.mark.parametrize("figure", ["trade-off", "int8", "roofline"])
def test_both_renderers_draw_the_same_data(figure: str, timings: Timings) -> None:
    spec = _figure(figure, timings)
    on_screen, on_paper = drawn_on_screen(spec), drawn_on_paper(spec)
    assert [s["label"] for s in on_screen] == [s["label"] for s in on_paper]
    for one, other in zip(on_screen, on_paper, strict=True):
        for key in ("x", "y", "x_err", "y_err"):
            assert one[key] == pytest.approx(other[key], rel=1e-9, abs=1e-9), (one["label"], key)
    assert any(one["x_err"] or one["y_err"] for one in on_screen)


@pytest.mark.filterwarnings("error:.*Glyph.*")
def test_bars_of_a_token_can_be_taken_into_a_paper(timings: Timings) -> None:
    timed = of_setup(timings.latencies, setups(timings.latencies)[0])
    spec = time_parts(timed, "gate_pruning", "int8")
    drawn = paper.to_figure(spec).axes[0].containers
    assert [bar.get_label() for bar in drawn] == [series.label for series in spec.series]
    for bars, series in zip(drawn, spec.series, strict=True):
        assert [bar.get_width() for bar in bars] == pytest.approx(list(series.x))


def test_the_finding_says_stored_numbers(timings: Timings) -> None:
    found = measured_speed(timings.points, timings.latencies, 0.5)
    assert found is not None
    assert found.sentence.startswith(
        "DIP · density 0.5 decodes 1.43 ± 0.02 × as fast as dense in the same run"
    )
    assert MACHINE in found.sentence
    assert "disturbed" not in found.sentence
    noisy = measured_speed(timings.points, timings.latencies, 0.3)
    assert noisy is not None
    assert "disturbed by other programs" in noisy.sentence
    assert measured_speed(timings.points, timings.latencies.iloc[:0], 0.5) is None


def _figure(name: str, timings: Timings) -> FigureSpec:
    if name == "roofline":
        return roofline(of_setup(timings.latencies, setups(timings.latencies)[0]))
    if name == "trade-off":
        return trade_off(timings.joined, TradeOffOptions(cost=SPEED))
    points, _ = beside(timings.points, timings.windows, timings.int8, timings.int8_windows)
    return trade_off(
        with_speed(points, timings.latencies, setups(timings.latencies)[0]), TradeOffOptions(cost=SPEED)
    )
