from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend.experiments import client
from backend.experiments.provenance import process_identity
from backend.experiments.sweep import Sweep
from backend.home import Home
from tests.figures.figures_samples import write_run
from tests.figures.memory_samples import MODEL, TEXT, aware_cell, aware_event, write_memory
from tests.pages.conftest import Open

OTHER_RUN = "20260101-002000-test-memory-0001"


@pytest.fixture(autouse=True)
def no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.experiments.recordings.SEED", tmp_path / "no-seed")
    monkeypatch.setattr("pages._shared.memory_data.SEED", tmp_path / "no-seed")


@pytest.fixture
def memory_home(empty_home: Home) -> Iterator[Home]:
    yield write_memory(empty_home)
    st.cache_resource.clear()


def metrics(page: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in page.metric}


def said(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.info])


def notices(page: AppTest) -> list[str]:
    """Return what is said of stored settings other than those asked for."""
    return [info.value for info in page.info if "Stored:" in info.value]


def headline(page: AppTest) -> pd.DataFrame:
    return next(frame.value for frame in page.dataframe if "+40 % from" in frame.value.columns)


def test_the_first_view_is_the_headline_experiment(memory_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory", density="0.9")
    shown = metrics(page)
    assert shown["Memory"] == "4 GB"
    assert shown["Tokens/s, dense streamed"] == "0.293"
    assert shown["MLP density"] == "0.900"
    assert "±" in shown["ΔNLL to dense"]
    assert "exact for every cache size" in said(page)
    carried = f"densities and hit rates were recorded on {MODEL}"
    assert f"phi-3-medium itself did not run here**: its sizes are from its config; {carried}" in said(page)
    assert "count of bytes" in said(page)
    assert not page.button(key="preset").disabled
    assert "run_missing" not in [button.key for button in page.button], "it is recorded and measured"


def test_the_dram_slider_moves_speed_and_nothing_measured(memory_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory", density="0.9")
    before = metrics(page)
    page.slider(key="dram").set_value(6.0).run()
    after = metrics(page)
    assert float(after["Tokens/s"]) > float(before["Tokens/s"])
    assert after["Memory"] == "6 GB"
    assert after["Perplexity"] == before["Perplexity"]
    assert not page.exception


def test_a_better_split_is_no_slower(memory_home: Home, open_page: Open) -> None:
    uniform, better = (
        metrics(open_page("dip_memory", density="0.5", split=s)) for s in ("Uniform", "Better")
    )
    assert float(better["Tokens/s"]) >= float(uniform["Tokens/s"])


@pytest.mark.parametrize(
    "address",
    [
        {"start": "Warm", "eviction": "LFU"},
        {"io": "Overlapped", "paper": "false", "bundled": "true"},
        {"shape": "smollm2-135m"},
        {"device": "Raspberry Pi 5, microSD card", "own_flash": "true", "flash": "2.0"},
        {"policy": "DIP-CA", "eviction": "LFU", "split": "Better"},
    ],
)
def test_every_control_can_stand_in_the_address(
    address: dict[str, str], memory_home: Home, open_page: Open
) -> None:
    page = open_page("dip_memory", **address)
    assert not page.warning
    assert not page.error
    assert float(metrics(page)["Tokens/s"].replace(",", "")) > 0


def test_cache_aware_figures_are_of_the_nearest_stored_point(memory_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory", policy="DIP-CA", density="0.9", gamma="0.35")
    assert "read from the stored grid" in said(page)
    assert "DIP-CA, density 0.9, γ 0.3, caches 40%" in said(page)
    assert "room for 39.1% of the columns" in said(page)
    assert page.button(key="run_missing").label == "Measure DIP-CA at density 0.9, γ 0.35, caches 39.1%"


def test_a_stored_point_other_than_asked_is_said_above_the_metrics(
    memory_home: Home, open_page: Open
) -> None:
    page = open_page(
        "dip_memory", policy="DIP-CA", density="0.8", gamma="0.4", eviction="LFU", split="Better", dram="4.1"
    )
    (notice,) = notices(page)
    assert "Stored: density 0.9, γ 0.3, LRU, uniform split, caches 40%" in notice
    assert "asked: density 0.8, γ 0.4, LFU, better split, caches " in notice
    assert "DIP is drawn beside it at density 0.9, with the same rule and split" in notice
    assert next(each.type for each in page.columns[1] if each.type in ("info", "metric")) == "info"
    drawn = json.loads(page.get("plotly_chart")[0].proto.spec)["data"]
    names = [trace["name"].replace("<br>", " ") for trace in drawn]
    assert "DIP, density 0.9, LRU" in names
    assert "DIP-CA, density 0.9, γ 0.3" in names
    assert "Not at equal" not in said(page)


def test_only_settings_that_differ_are_said(memory_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory", policy="DIP-CA", density="0.9", gamma="0.35")
    (notice,) = notices(page)
    assert "Stored: γ 0.3, caches 40%; asked: γ 0.35, caches 39%." in notice
    plain = open_page("dip_memory", density="0.6")
    assert "Stored: density 0.5; asked: density 0.6." in notices(plain)[0]
    assert not notices(open_page("dip_memory", density="0.9"))


def test_methods_at_unequal_density_are_said_to_be(memory_home: Home, open_page: Open) -> None:
    write_run(memory_home, [], OTHER_RUN, more=[aware_event(aware_cell(0.75, 0.3, 0.4))])
    page = open_page("dip_memory", policy="DIP-CA", density="0.75")
    notes = [caption.value for caption in page.caption if "Not at equal MLP density" in caption.value]
    assert len(notes) == 2, "of speeds and of hit rates"
    assert all("DIP-CA 0.750" in note and "DIP 0.700" in note for note in notes)


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        ({}, False),
        ({"own_flash": "false"}, False),
        ({"own_flash": "true"}, True),
        ({"sequence": "4096"}, True),
        ({"bundled": "true"}, True),
    ],
)
def test_what_the_address_sets_in_the_expander_is_seen(
    address: dict[str, str], opened: bool, memory_home: Home, open_page: Open
) -> None:
    page = open_page("dip_memory", **address)
    assert _flash_and_sequence(page) == opened


def test_the_expander_stays_open_when_a_setting_goes_back(memory_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory", own_flash="true")
    page.toggle(key="own_flash").set_value(False).run()
    assert _flash_and_sequence(page)


def test_the_missing_point_of_dip_ca_is_measured(
    memory_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _submissions(monkeypatch)
    page = open_page("dip_memory", policy="DIP-CA", density="0.9", gamma="0.35")
    page.button(key="run_missing").click().run()
    assert not page.exception
    ((sweep, kind),) = asked
    assert kind == "point"
    dense, aware = (plan.policy for plan in sweep.plans())
    assert dense.name == "dense"
    wanted = {"density": 0.9, "gamma": 0.35, "cache_share": 0.391, "eviction": "lru"}
    assert wanted.items() <= aware.canonical().items()
    assert (sweep.model, sweep.evaluation.text) == (MODEL, TEXT)


def test_the_missing_density_of_dip_is_recorded_and_measured(
    memory_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _submissions(monkeypatch)
    page = open_page("dip_memory", density="0.6")
    assert "the nearest to 0.6" in said(page)
    page.button(key="run_missing").click().run()
    assert [kind for _, kind in asked] == ["point", "recording"]
    assert [plan.policy.canonical() for plan in asked[1][0].plans()] == [{"density": 0.6}]
    assert len(page.get("progress")) == 2


def test_the_headline_stands_beside_the_papers(memory_home: Home, open_page: Open) -> None:
    table = headline(open_page("dip_memory"))
    assert list(table.loc[0, ["Policy", "Tokens/s vs dense", "Memory"]]) == ["the paper", "+40%", "−46%"]
    assert len(table) == 17
    found = table[(table["Policy"] == "DIP") & (table["Point"] != "none measured")]
    assert set(found["Memory"]) == {"−45.6%"}
    assert set(found["Split"]) == {"uniform", "better"}
    assert set(found["I/O"]) == {"in turn", "overlapped"}


def test_the_preset_sets_the_controls(memory_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory", shape="mistral-7b", policy="DIP-CA", io="Overlapped", paper="false")
    page.button(key="preset").click().run()
    assert page.selectbox(key="shape").value == "phi-3-medium"
    assert page.slider(key="dram").value == 4.0
    assert page.slider(key="density").value == 0.9
    assert page.toggle(key="paper").value is True
    assert metrics(page)["Tokens/s, dense streamed"] == "0.293"


def test_any_model_with_a_config_can_be_simulated(memory_home: Home, open_page: Open, tmp_path: Path) -> None:
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 5,
        "num_attention_heads": 4, "vocab_size": 1000,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    page = open_page("dip_memory", shape=str(folder))
    assert not page.error
    assert "tiny-model itself did not run here" in said(page)


def test_an_unknown_shape_is_a_sentence(memory_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory", shape="phi-3-medum")
    assert "phi-3-medium" in page.error[0].value


def test_without_recordings_hit_rates_are_said_to_be_assumed(empty_home: Home, open_page: Open) -> None:
    page = open_page("dip_memory")
    assert "assumed" in page.info[0].value
    assert page.button(key="run_missing").label == "Record and measure DIP at density 0.8"
    aware = open_page("dip_memory", policy="DIP-CA")
    assert "No point of DIP-CA is stored" in aware.info[0].value
    assert "run_missing" in [button.key for button in aware.button]


def _flash_and_sequence(page: AppTest) -> bool:
    """Return whether the expander is open."""
    return next(each.proto.expanded for each in page.expander if each.label == "Flash and sequence")


def _submissions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Sweep, str]]:
    asked: list[tuple[Sweep, str]] = []

    def submit(home: Home, sweep: Sweep, kind: str) -> str:
        asked.append((sweep, kind))
        run = f"20260101-000100-{kind}-000{len(asked)}"
        write_run(home, [], run, status=None, process=process_identity())
        return run

    monkeypatch.setattr(client, "submit", submit)
    return asked
