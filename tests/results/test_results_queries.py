from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pandas as pd
import pytest
from results_samples import ended, event, finished, started, write_run

from backend.errors import UserError
from backend.home import Home
from backend.results import Store, export_measurements, queries
from backend.results.export import to_bytes


@pytest.fixture
def two_runs(home: Home, store: Store) -> Store:
    """r1 measured c0 and c1; r2, later, measured c1 again and g, found c0 and failed at f."""
    write_run(home, "r1")
    other = {"version": 1, "tokens": 2048, "window": 512, "stride": 256, "dtype": "bfloat16"}
    write_run(
        home,
        "r2",
        [
            started(100),
            event("run_planned", 100, cells=["c0", "c1", "g", "f"]),
            event("cell_found", 101, cell="c0"),
            event("progress", 102, cell="c1", done=1, total=8, seconds_left=4.5),
            finished("c1", 102, keep=0.5, perplexity=18.0, windows=[1.0, 2.0]),
            finished("g", 103, policy="glu", keep=0.7, evaluation=other, text="wiki", text_sha256="w" * 64),
            event("cell_failed", 104, cell="f", message="no"),
            ended(105, "failed", "1 cell failed."),
        ],
        second=100,
    )
    store.ingest()
    return store


def test_runs_are_listed_newest_first_with_their_cells(two_runs: Store) -> None:
    listed = queries.runs(two_runs)
    assert listed.columns.tolist() == [
        "run_id", "name", "kind", "status", "source", "created_at", "started_at", "finished_at", "message",
        "planned", "measured", "found", "done", "failed",
    ]  # fmt: skip
    assert listed[
        ["run_id", "status", "planned", "measured", "found", "done", "failed"]
    ].to_numpy().tolist() == [
        ["r2", "failed", 4, 2, 1, 3, 1],
        ["r1", "done", 2, 2, 0, 2, 0],
    ]
    assert queries.run(two_runs, "r3") is None


def test_events_are_the_last_ones_in_order(two_runs: Store) -> None:
    last = queries.events(two_runs, "r2", last=3)
    assert last.columns.tolist() == ["seq", "at", "kind", "cell_id", "payload"]
    assert last["kind"].tolist() == ["cell_finished", "cell_failed", "run_finished"]
    assert json.loads(last["payload"].iloc[1]) == {"message": "no"}
    assert queries.progress(two_runs, "r2") == {"done": 1, "total": 8, "seconds_left": 4.5}
    assert queries.progress(two_runs, "r3") is None


def test_the_latest_run_wins_where_a_cell_was_measured_twice(two_runs: Store) -> None:
    points = queries.points(two_runs).set_index("cell_id")
    assert points["run_id"].to_dict() == {"c0": "r1", "c1": "r2", "g": "r2"}
    assert points.loc["c1", "perplexity"] == 18.0
    assert points.loc["c1", "perplexity_stderr"] == 0.4
    assert points.loc["c1", "scored_tokens"] == 3069
    assert points["how"].to_dict() == {"c0": "measured", "c1": "measured", "g": "oracle"}
    assert points["kl"].isna().all()
    assert json.loads(points.loc["c0", "settings"]) == {"keep": 0.25}


@pytest.mark.parametrize(
    ("given", "cells"),
    [
        ({"text": "wiki"}, ["g"]),
        ({"text_sha256": "t" * 64}, ["c0", "c1"]),
        ({"model": "tiny", "model_sha256": "m" * 64}, ["c0", "c1", "g"]),
        ({"model": "other"}, []),
        ({"tokens": 2048, "window": 512, "stride": 256, "dtype": "bfloat16"}, ["g"]),
        ({"stride": 1024}, ["c0", "c1"]),
        ({"policy": "glu"}, ["g"]),
        ({"run_id": "r1"}, ["c0", "c1"]),
        ({"run_id": "r2"}, ["c0", "c1", "g"]),
        ({"cell_ids": ["c0", "g", "nothing"]}, ["c0", "g"]),
        ({"cell_ids": []}, []),
        ({"policy": "' OR true --"}, []),
    ],
)
def test_points_are_filtered(two_runs: Store, given: dict[str, object], cells: list[str]) -> None:
    assert sorted(queries.points(two_runs, **given)["cell_id"]) == cells  # type: ignore[arg-type]


def test_evaluations_are_the_choices_of_a_page(two_runs: Store) -> None:
    found = queries.evaluations(two_runs)
    assert found.columns.tolist() == [
        "kind", "model", "model_sha256", "text", "text_sha256", "tokens", "window", "stride", "dtype",
        "cells",
    ]  # fmt: skip
    assert found[["text", "tokens", "stride", "cells"]].to_numpy().tolist() == [
        ["prose", 3072, 1024, 2],
        ["wiki", 2048, 256, 1],
    ]


def test_a_cell_is_found_with_its_latest_result(two_runs: Store) -> None:
    found = queries.find(two_runs, "c1")
    assert found is not None
    assert (found.run_id, found.seconds) == ("r2", 1.5)
    assert found.measurements[2] == {
        "metric": "perplexity", "value": 18.0, "stderr": 0.4, "n": 3069, "unit": "", "how": "measured",
    }  # fmt: skip
    assert queries.find(two_runs, "f") is None


def test_window_values_are_by_cell_and_window(two_runs: Store) -> None:
    values = queries.window_values(two_runs, ["c1", "f", "c0"], "delta_nll")
    assert values.index.tolist() == ["c1", "c0"]
    assert values.columns.tolist() == [0, 1, 2]
    assert values.loc["c0"].tolist() == [0.1, 0.2, 0.3]
    assert values.loc["c1"].tolist()[:2] == [1.0, 2.0]
    assert pd.isna(values.loc["c1", 2])
    assert queries.window_values(two_runs, [], "delta_nll").empty


def test_measurements_are_one_row_each(two_runs: Store) -> None:
    rows = queries.measurements(two_runs)
    assert rows.columns.tolist() == [
        "model", "policy", "settings", "text", "metric", "value", "stderr", "n", "unit", "how", "run",
    ]  # fmt: skip
    assert len(rows) == 12
    assert queries.measurements(two_runs, {"metric": "perplexity", "run": "r2"})["value"].tolist() == [
        18.0,
        20.0,
    ]
    assert len(queries.measurements(two_runs, {"settings": '{"keep":0.5}', "n": "3069"})) == 2
    assert queries.measurements(two_runs, {"policy": "x' OR '1'='1"}).empty


def test_a_wrong_filter_is_a_sentence(store: Store) -> None:
    with pytest.raises(UserError, match="no column 'polcy'; did you mean 'policy'"):
        queries.measurements(store, {"polcy": "dip"})
    with pytest.raises(UserError, match="'value' holds numbers"):
        queries.measurements(store, {"value": "high"})


def test_measurements_leave_as_csv_json_and_parquet(two_runs: Store, tmp_path: Path) -> None:
    rows = queries.measurements(two_runs)
    read = pd.read_csv(io.BytesIO(to_bytes(rows, "csv")), keep_default_na=False)
    assert read["metric"].tolist() == rows["metric"].tolist()
    assert read.columns.tolist() == list(queries.MEASUREMENT_COLUMNS)
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(to_bytes(rows, "parquet"))), rows)
    first = json.loads(to_bytes(rows, "json"))["measurements"][1]
    assert first == {
        "model": "tiny", "policy": "dip", "settings": {"keep": 0.25}, "text": "prose",
        "metric": "mlp_density", "value": 0.25, "stderr": None, "n": 3072, "unit": "share", "how": "measured",
        "run": "r1",
    }  # fmt: skip
    assert export_measurements(two_runs, tmp_path / "x.csv", {"metric": "perplexity"}) == 4
    assert (tmp_path / "x.csv").read_text().count("\n") == 5
    with pytest.raises(UserError, match="'xlsx'; known: csv, json, parquet"):
        export_measurements(two_runs, tmp_path / "x.xlsx")
    with pytest.raises(UserError, match="cannot be written"):
        export_measurements(two_runs, tmp_path / "absent" / "x.csv")


def test_an_empty_store_answers_everything(store: Store, tmp_path: Path) -> None:
    assert queries.runs(store).empty
    assert queries.points(store).empty
    assert queries.evaluations(store).empty
    assert json.loads(to_bytes(queries.measurements(store), "json")) == {"measurements": []}


def test_a_page_is_fast_on_a_large_store(home: Home, store: Store) -> None:
    """100,000 measurements; the page shows one evaluation. Generous: the bound is for a loaded machine."""
    cells = [f"{n:05}" for n in range(34_000)]
    for part in range(4):
        write_run(
            home, f"r{part}", [started(), *(finished(c, 1, text_sha256=c[-2:]) for c in cells[part::4])]
        )
    store.ingest()
    assert store.rows("SELECT count(*) FROM measurements")[0][0] == 102_000
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        queries.runs(store)
        queries.evaluations(store)
        shown = queries.points(store, model="tiny", text_sha256="07", tokens=3072, window=1024)
        queries.window_values(store, shown["cell_id"].tolist(), "delta_nll")
        times.append(time.perf_counter() - begin)
    assert len(shown) == 340
    assert min(times) < 0.2
