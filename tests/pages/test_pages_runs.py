from __future__ import annotations

import pandas as pd
import pytest
import yaml

from backend.errors import UserError
from backend.experiments import client
from backend.experiments.provenance import process_identity
from backend.experiments.sweep import Sweep
from backend.home import Home
from pages._shared.compose import to_yaml
from pages._shared.forms import values_of
from pages._shared.text import ago, duration
from tests.figures.figures_samples import RUN, cell, policies, write_run
from tests.pages.conftest import Open


def test_the_form_makes_the_sweep_it_shows(results_home: Home, open_page: Open) -> None:
    page = open_page("runs", name="mine", tokens="2048", window="512", methods=["DIP", "Random"])
    page.text_input(key="values_dip").set_value("0.2:0.6:0.2").run()
    shown = Sweep.from_text(page.code[0].value)
    assert shown.name == "mine"
    assert shown.evaluation.steps == 4
    assert len(shown.plans()) == 1 + 3 + 4
    assert any(expander.label.startswith("8 cells, about ") for expander in page.expander)


def test_starting_submits_the_sweep_and_shows_its_run(
    results_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sweep] = []
    run = "20260101-000200-sweep-0002"

    def submit(home: Home, sweep: Sweep, kind: str) -> str:
        assert kind == "sweep"
        asked.append(sweep)
        write_run(home, [], run, status=None)
        return run

    monkeypatch.setattr(client, "submit", submit)
    page = open_page("runs", name="mine")
    page.button(key="form_start").click().run()
    assert not page.exception
    assert asked[0].name == "mine"
    assert page.selectbox(key="run").value == run


@pytest.mark.parametrize(
    ("key", "text", "sentence"),
    [
        ("values_dip", "0.1, 2", "density"),
        ("values_dip", "a lot", "'a lot' is neither a list"),
        ("values_dip", "", "has no value of density"),
        ("name", "no spaces please", "must be letters, digits"),
    ],
)
def test_a_wrong_sweep_is_a_sentence(
    key: str, text: str, sentence: str, results_home: Home, open_page: Open
) -> None:
    page = open_page("runs", name="mine")
    page.text_input(key=key).set_value(text).run()
    assert sentence in page.error[0].value
    assert not page.exception
    assert "form_start" not in [button.key for button in page.button]


def test_a_run_is_found_by_its_address(results_home: Home, open_page: Open) -> None:
    write_run(results_home, [], "20260101-000300-other-0003", "failed")
    page = open_page("runs", run=RUN)
    assert page.selectbox(key="run").value == RUN
    log = next(frame.value for frame in page.dataframe if "Event" in frame.value.columns)
    assert "cell finished in 2 s" in list(log["Event"])
    results = next(frame.value for frame in page.dataframe if "delta_nll" in frame.value.columns)
    assert len(results) == len(policies())


def test_an_unknown_run_in_the_address_is_a_sentence(results_home: Home, open_page: Open) -> None:
    page = open_page("runs", run="20200101-000000-gone-ffff")
    assert "which there is not" in page.warning[0].value


def test_a_running_run_shows_its_progress_and_can_be_stopped(results_home: Home, open_page: Open) -> None:
    said = {"kind": "progress", "cell": "c", "done": 30, "total": 120, "seconds_left": 600.0}
    run = "20260101-000400-live-0004"
    write_run(results_home, [cell(policies()[0])], run, None, [said], process=process_identity())
    page = open_page("runs", run=run)
    bar = page.get("progress")[0].proto
    assert (bar.value, bar.text) == (25, "30 of 120 windows · about 10 min left")
    page.button(key=f"pause_{run}").click().run()
    assert (results_home.runs / run / "pause").exists()
    page.button(key=f"cancel_{run}").click().run()
    assert (results_home.runs / run / "cancel").exists()
    assert not page.exception


@pytest.mark.parametrize("status", ["cancelled", "failed", "interrupted"])
def test_a_run_that_stopped_can_be_resumed(
    status: str, results_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed: list[str] = []
    monkeypatch.setattr(client, "resume", lambda home, run: resumed.append(run))
    run = "20260101-000500-stopped-0005"
    write_run(results_home, [], run, None if status == "interrupted" else status)
    page = open_page("runs", run=run)
    page.button(key=f"resume_{run}").click().run()
    assert resumed == [run]


def test_a_resumed_run_counts_each_cell_once(results_home: Home, open_page: Open) -> None:
    made = [cell(policy) for policy in policies()[:3]]
    run = "20260101-000600-resumed-0006"
    found = [{"kind": "cell_found", "cell": each.id, "run": run} for each in made[:2]]
    write_run(results_home, made, run, more=found)
    page = open_page("runs", run=run)
    table = next(frame.value for frame in page.dataframe if "Cells done" in frame.value.columns)
    row = table.set_index("Run").loc[run]
    assert (row["Cells done"], row["Planned"]) == (3, 3)


def test_a_finished_run_has_no_controls(results_home: Home, open_page: Open) -> None:
    page = open_page("runs", run=RUN)
    assert not {f"cancel_{RUN}", f"pause_{RUN}", f"resume_{RUN}"} & {button.key for button in page.button}


def test_a_sweep_survives_its_file() -> None:
    sweep = Sweep.from_text(
        "name: a\nmodel: m\nevaluation: {tokens: 512, window: 256}\n"
        "policies: [{method: dip, density: [0.1, 0.5]}]"
    )
    assert Sweep.from_text(to_yaml(sweep)) == sweep
    assert yaml.safe_load(to_yaml(sweep))["evaluation"] == {"tokens": 512, "window": 256}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "no valid YAML"),
        ("- a", "must be a mapping"),
        ("name: a\nmodel: m\npolicies: [{method: dipp}]", "did you mean 'dip'"),
        ("name: a\nmodle: m\npolicies: [{method: dip}]", "did you mean 'model'"),
    ],
)
def test_a_wrong_file_is_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")):
        Sweep.from_text(text)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.1, 0.5", [0.1, 0.5]),
        ("0.1:0.9:0.2", [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("0.5", [0.5]),
        ("0.25;0.5,", [0.25, 0.5]),
        ("", []),
    ],
)
def test_values_are_a_list_or_a_range(text: str, values: list[float]) -> None:
    assert values_of(text, "keep") == pytest.approx(values)


@pytest.mark.parametrize("text", ["0.9:0.1:0.1", "0.1:0.9:0", "0.1:0.9", "x"])
def test_other_values_are_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="neither a list"):
        values_of(text, "keep")


def test_times_are_words() -> None:
    assert [duration(s) for s in (None, 40, 600, 11_100)] == ["unknown", "40 s", "10 min", "3 h 5 min"]
    assert ago(None) == "–"
    assert ago(pd.NaT) == "–"
