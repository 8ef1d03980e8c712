from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from backend.experiments import client
from backend.experiments.sweep import Sweep
from backend.home import Home
from tests.figures.figures_samples import STEEPNESS, TEXT, cell, policies, write_run
from tests.pages.conftest import Open


def table(page: AppTest, first: str) -> pd.DataFrame:
    """Return the table whose columns include ``first``."""
    return next(frame.value for frame in page.dataframe if first in frame.value.columns)


def read_out(page: AppTest) -> pd.DataFrame:
    return table(page, "How").set_index("Method")


def test_the_density_slider_reads_every_method_out(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", density="0.5")
    at_half = read_out(page)
    assert at_half.loc["DIP", "How"] == "measured at 0.500"
    assert at_half.loc["GLU pruning", "How"] == "cannot reach"
    assert at_half.loc["GLU (oracle)", "How"] == "measured at 0.500"
    page.slider(key="density").set_value(0.6).run()
    at_more = read_out(page)
    assert at_more.loc["DIP", "How"] == "interpolated"
    assert "±" in at_more.loc["DIP", "Perplexity ↓"]
    assert at_more.loc["DIP", "Perplexity ↓"] != at_half.loc["DIP", "Perplexity ↓"]
    assert at_more.loc["Gate pruning", "NLL − DIP's ↓"].startswith("+")
    assert not page.exception


def test_the_reference_can_be_chosen(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", reference="Gate pruning", density="0.65")
    found = read_out(page)
    assert found.loc["DIP", "NLL − Gate pruning's ↓"].startswith("−")
    assert found.loc["Gate pruning", "NLL − Gate pruning's ↓"] == "–"


def test_the_budget_slider_names_the_best_point(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", budget="20")
    said = next(m.value for m in page.markdown if "goes lowest" in m.value)
    assert said.startswith("**DIP** goes lowest: MLP density **0.700**")
    found = table(page, "Curve crosses at").set_index("Method")
    assert found.loc["GLU pruning", "Point"] == "GLU pruning · keep 0.7"
    page.slider(key="budget").set_value(0.25).run()
    assert not page.exception


@pytest.mark.parametrize(
    "quality", ["Perplexity", "ΔNLL to dense", "KL(dense‖sparse)", "Top-1 agreement with dense"]
)
@pytest.mark.parametrize("cost", ["MLP density", "Model density", "Weights read"])
def test_every_pair_of_axes_can_be_shown(
    quality: str, cost: str, results_home: Home, open_page: Open
) -> None:
    page = open_page("trade_offs", quality=quality, cost=cost, log="true", range="All")
    assert not page.error
    assert not page.warning
    assert len(read_out(page)) == len(STEEPNESS)


def test_a_link_shows_what_its_sender_saw(results_home: Home, open_page: Open) -> None:
    page = open_page(
        "trade_offs", density="0.6", methods=["DIP", "Random"], dominated="false", quality="KL(dense‖sparse)"
    )
    assert page.slider(key="density").value == 0.6
    assert page.multiselect(key="methods").value == ["DIP", "Random"]
    assert page.toggle(key="dominated").value is False
    assert page.selectbox(key="quality").value == "KL(dense‖sparse)"
    assert list(read_out(page).index) == ["DIP", "Random (control)"]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("density", "7", "`7`; it must be a number from 0.05 to 1"),
        ("density", "half", "`half`; it must be a number"),
        ("budget", "-1", "`-1`; it must be a number"),
        ("methods", "DIPP", "`DIPP`, which there is not; did you mean 'DIP'?"),
        ("quality", "beauty", "`beauty`, which there is not"),
        ("evaluation", "<b>x</b>", "which there is not"),
        ("range", "Everything", "`Everything`, which there is not"),
        ("log", "perhaps", "`perhaps`, which there is not"),
    ],
)
def test_a_bad_address_is_one_sentence_and_the_default(
    key: str, value: str, sentence: str, results_home: Home, open_page: Open
) -> None:
    page = open_page("trade_offs", **{key: value})
    assert len(page.warning) == 1
    assert sentence in page.warning[0].value
    assert page.slider(key="density").value == 0.7
    assert not page.error


def test_no_method_is_an_empty_figure_and_a_hint(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs")
    page.multiselect(key="methods").set_value([]).run()
    assert not page.exception
    assert "Choose a method" in page.info[0].value


def test_chosen_points_are_shown_with_what_differs(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", points=["DIP · density 0.5", "Gate pruning · keep 0.5"])
    differing = next(frame.value for frame in page.dataframe if "DIP · density 0.5" in frame.value.columns)
    assert {"method", "density", "keep"} <= set(differing.index)
    assert "run: commit" not in differing.index
    cards = [frame.value for frame in page.dataframe if "± stderr" in frame.value.columns]
    assert len(cards) == 2
    assert {"perplexity", "ΔNLL", "KL", "MLP density"} <= set(cards[0]["Metric"])
    assert any("torch 0.0-test" in caption.value for caption in page.caption)


def test_measuring_a_point_submits_it_with_its_dense_pair(
    results_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Sweep, str]] = []
    run = "20260101-000100-point-0001"

    def submit(home: Home, sweep: Sweep, kind: str) -> str:
        asked.append((sweep, kind))
        write_run(home, [], run, status=None)
        return run

    monkeypatch.setattr(client, "submit", submit)
    page = open_page("trade_offs")
    page.slider(key="measure_density_dip").set_value(0.35).run()
    page.button(key="measure").click().run()
    assert not page.exception
    ((sweep, kind),) = asked
    assert kind == "point"
    assert [plan.policy.canonical() for plan in sweep.plans()] == [{}, {"density": 0.35}]
    assert (sweep.evaluation.tokens, sweep.evaluation.window, sweep.evaluation.steps) == (512, 256, 2)
    page.selectbox(key="measure_text").set_value("prose").run()
    page.button(key="measure").click().run()
    assert [sweep.evaluation.text for sweep, _ in asked] == [TEXT, "prose"]


def test_a_measured_point_stands_beside_its_own_dense_run(results_home: Home, open_page: Open) -> None:
    dip = next(policy for policy in policies() if policy.name == "dip")
    dense = policies()[0]
    write_run(results_home, [cell(dense), cell(dip)], "20260101-000100-point-0001")
    page = open_page("trade_offs")
    page.session_state["measured_run"] = "20260101-000100-point-0001"
    page.run()
    metrics = {metric.label: metric.value for metric in page.metric}
    assert metrics["MLP density"] == "0.300"
    assert any(label.startswith("Perplexity (dense ") for label in metrics)
    assert "±" in metrics["Rise over dense, paired"]


def test_own_settings_are_checked(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs")
    page.radio(key="measure_by").set_value("Own settings").run()
    assert "give density, or both input_keep and neuron_keep" in page.error[0].value
    _fill(page, "measure_dip_input_keep", "0.5")
    _fill(page, "measure_dip_neuron_keep", "0.4, 0.6")
    assert not page.error
    _fill(page, "measure_dip_neuron_keep", "half")
    assert "'half' is neither a list" in page.error[0].value
    _fill(page, "measure_dip_neuron_keep", "7")
    assert page.error
    assert not page.exception


def _fill(page: AppTest, key: str, text: str) -> Any:
    return page.text_input(key=key).set_value(text).run()
