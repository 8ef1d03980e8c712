from __future__ import annotations

import re

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from backend.experiments import client
from backend.experiments.sweep import Sweep
from backend.home import Home
from tests.figures.figures_samples import LATENCY_RUN, write_run
from tests.pages.conftest import Open

SPEED = "Measured speed"
MACHINE = "test processor, 2 cores, cpu, 2 threads"


def read_out(page: AppTest) -> pd.DataFrame:
    found = next(frame.value for frame in page.dataframe if "How" in frame.value.columns)
    return found.set_index("Method")


def test_the_axis_of_speed_reads_latencies_out(latency_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", cost=SPEED, speed="80")
    found = read_out(page)
    assert list(found.index) == ["DIP", "Gate pruning"]
    assert found.loc["DIP", "Tokens/s ↑"] == "89.3 ± 1.2"
    assert found.loc["DIP", "p10–p90"] == "74.4–94.0"
    assert found.loc["DIP", "Over dense ↑"] == "1.43 ± 0.02 ×"
    assert found.loc["DIP", "Rounds"] == "undisturbed"
    assert found.loc["DIP", "Loop"] == "lean"
    said = " ".join(caption.value for caption in page.caption)
    assert MACHINE in said
    assert "16 points without a measured latency are left out" in said
    assert "4 oracle points have no latency" in said
    page.slider(key="speed").set_value(100.0).run()
    found = read_out(page)
    assert found.loc["Gate pruning", "How"] == "not as fast"
    assert found.loc["DIP", "Rounds"] == "1 disturbed (others took up to 30 %)"
    said = next(markdown.value for markdown in page.markdown if "goes fastest" in markdown.value)
    assert re.search(r"\*\*\d+\.\d ± \d+\.\d\*\* tokens/s \(\d\.\d\d ± \d\.\d\d × of dense", said)
    budget = next(
        frame.value for frame in page.dataframe if "Over dense ↑" in frame.value and "Point" in frame.value
    )
    assert any("tokens/s" in column for column in budget.columns)
    assert not page.exception


def test_gathered_timings_are_shown_first_and_others_can_be_chosen(
    latency_home: Home, open_page: Open
) -> None:
    page = open_page("trade_offs", cost=SPEED)
    timing = page.selectbox(key="timing")
    assert timing.value.endswith("gathered")
    timing.set_value(next(option for option in timing.options if option.endswith("masked"))).run()
    assert list(read_out(page).index) == ["DIP"]
    assert not page.exception


def test_int8_can_stand_beside(latency_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", cost=SPEED, int8="true", speed="70")
    found = read_out(page)
    assert {"DIP", "DIP, int8", "Dense, int8"} <= set(found.index)
    assert found.loc["DIP, int8", "KL ↓"] == "–"
    assert not page.exception


def test_on_other_axes_a_point_says_its_speed_too(latency_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", density="0.5")
    found = read_out(page)
    assert found.loc["DIP", "Tokens/s ↑"] == "89.3 ± 1.2"
    assert found.loc["Up pruning", "Tokens/s ↑"] == "–"


def test_without_latencies_the_page_says_how_to_measure_one(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", cost=SPEED)
    assert "python -m backend latency" in page.info[0].value
    assert page.button(key="measure_latency").label == "Measure its latency now"
    assert not page.error


@pytest.mark.parametrize(("density", "settings", "repeat"), [("0.5", 0.5, 2), ("0.6", 0.6, 0)])
def test_the_latency_of_what_is_read_out_can_be_measured(
    density: str,
    settings: float,
    repeat: int,
    latency_home: Home,
    open_page: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Sweep, str]] = []

    def submit(home: Home, sweep: Sweep, kind: str) -> str:
        asked.append((sweep, kind))
        write_run(home, [], "20260101-000100-point-0001", status=None)
        return "20260101-000100-point-0001"

    monkeypatch.setattr(client, "submit", submit)
    page = open_page("trade_offs", density=density)
    assert any("Timing runs alone" in caption.value for caption in page.caption)
    page.button(key="measure_latency").click().run()
    assert not page.exception
    ((sweep, kind),) = asked
    assert kind == "point"
    assert sweep.evaluation.canonical()["kind"] == "latency"
    assert sweep.evaluation.canonical()["repeat"] == repeat
    assert [plan.policy.canonical() for plan in sweep.plans()] == [{"density": settings}]


def test_a_timing_that_was_asked_for_is_shown(latency_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs")
    page.session_state["latency_run"] = LATENCY_RUN
    page.run()
    metrics = {metric.label: metric.value for metric in page.metric}
    assert metrics["Over dense, same run"].endswith("×")
    assert not page.exception


def test_measured_decoding_stands_on_dip_and_memory(latency_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory")
    table = next(f.value for f in page.dataframe if "Share of the limit ↑" in f.value.columns)
    points = table.set_index("Point")
    assert points.loc["Dense", "Over dense ↑"] == "1.00 ×"
    assert points.loc["DIP · density 0.5", "Tokens/s ↑"] == "89.3 ± 1.8"
    assert points.loc["DIP · density 0.5, int8", "MB/token ↓"] == "72.0"
    parts = page.selectbox(key="parts")
    assert parts.value == "DIP, float32"
    parts.set_value("Gate pruning, int8").run()
    assert not page.exception


def test_dip_and_memory_without_latencies_says_how_to_get_them(results_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory")
    assert any("python -m backend latency" in info.value for info in page.info)


def test_a_sweep_of_latencies_can_be_composed(latency_home: Home, open_page: Open) -> None:
    page = open_page("runs", kind="Latency on this machine", latency_rounds="2", methods=["DIP"])
    assert page.number_input(key="latency_tokens").value == 128
    shown = Sweep.from_text(page.code[0].value)
    assert shown.evaluation.canonical()["kind"] == "latency"
    assert shown.evaluation.steps == 2
    assert any(expander.label.startswith("5 cells, about ") for expander in page.expander)
    page.multiselect(key="methods").set_value(["GLU oracle"]).run()
    assert "is an oracle" in page.error[0].value
    page.multiselect(key="methods").set_value(["DIP"]).run()
    page.number_input(key="latency_batch").set_value(2).run()
    assert "latency is measured for batch 1" in page.error[0].value
    page.radio(key="kind").set_value("Quality on a text").run()
    assert page.number_input(key="tokens").value == 4096
    assert not page.error


def test_the_results_of_a_latency_run_are_latencies(latency_home: Home, open_page: Open) -> None:
    page = open_page("runs", run=LATENCY_RUN)
    results = next(f.value for f in page.dataframe if "tokens_per_s" in f.value.columns)
    assert {"ms_per_token_median", "speedup", "mlp_density", "dtype"} <= set(results.columns)
    assert "perplexity" not in results.columns
    assert len(results) == 17


def test_home_tells_the_measured_speed(latency_home: Home, open_page: Open) -> None:
    page = open_page("home")
    said = " ".join(markdown.value for markdown in page.markdown)
    assert "DIP · density 0.5 decodes 1.43 ± 0.02 × as fast as dense in the same run" in said


def test_methods_say_whether_they_were_timed(latency_home: Home, open_page: Open) -> None:
    page = open_page("methods")
    overview = page.dataframe[0].value.set_index("Name")
    assert overview.loc["dip", "Latency"] == "9 measured"
    assert overview.loc["up_pruning", "Latency"] == "none yet"
    assert overview.loc["glu_oracle", "Latency"] == "none: an oracle"
