from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend.experiments import client
from backend.experiments.sweep import Sweep
from backend.figures.sparse_activation import PROTOCOLS
from backend.home import Home
from tests.figures.activation_samples import MODEL, write_activation
from tests.figures.figures_samples import write_run
from tests.pages.conftest import Open


@pytest.fixture
def activation_home(empty_home: Home) -> Iterator[Home]:
    yield write_activation(empty_home)
    st.cache_resource.clear()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The specs of the figures that a page shows, by key."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        "pages.sparse_activation.show_figure",
        lambda spec, key, **_more: found.__setitem__(key, spec),
        raising=False,
    )
    monkeypatch.setattr(
        "pages._shared.figures.show_figure", lambda spec, key, **_more: found.__setitem__(key, spec)
    )
    return found


def said(page: AppTest) -> str:
    return " ".join(element.value for element in [*page.markdown, *page.caption, *page.info])


def labels(spec: Any) -> list[str]:
    return [series.label for series in spec.series]


def test_the_verdict_stands_on_top_with_its_numbers(activation_home: Home, open_page: Open) -> None:
    page = open_page("sparse_activation")
    top = page.markdown[1].value
    assert f"On {MODEL}, “80 % sparsity at under 5 % loss”" in top
    assert "forced answers (loss 3.9 ±" in top
    assert "%: the label's part; without any label, magnitude loses" in top
    assert "magnitude loses 39.9" in top
    table = next(frame.value for frame in page.dataframe if "Protocol" in frame.value.columns)
    assert list(table["Protocol"]) == ["forced answers", "free answers", "teacher-forced text"]
    assert table.loc[0, "Second choice"].startswith("63.9 ±")
    assert table.loc[1, "Second choice"] == "not measured"
    assert table.loc[0, "Beyond 5 %"].startswith("−1.1 ±")
    assert not page.warning


def test_kinds_never_share_a_series(activation_home: Home, open_page: Open, drawn: dict[str, Any]) -> None:
    open_page("sparse_activation")
    names = labels(drawn["curves"])
    assert len(set(names)) == len(names)
    assert "Corrected GxO (oracle label: own greedy token)" in names
    assert "Corrected GxO (wrong label: second choice)" in names
    assert not any(name.startswith(("DIP", "Prompt")) for name in names), "those are of protocol C"
    open_page("sparse_activation", protocol="C label-free")
    names = labels(drawn["curves"])
    assert "DIP" in names
    assert "Expected Fisher (label-free oracle)" in names
    assert not any("label:" in name for name in names)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_its_own_points(
    protocol: str, activation_home: Home, open_page: Open, drawn: dict[str, Any]
) -> None:
    page = open_page("sparse_activation", protocol=protocol)
    assert not page.warning
    assert PROTOCOLS[protocol].says in said(page)
    assert PROTOCOLS[protocol].title in drawn["curves"].title
    evaluation = drawn["curves"].provenance.filters["evaluation"]
    form = PROTOCOLS[protocol].form
    assert ('"form":"free"' in evaluation.replace(" ", "")) == (form == "free")
    assert ("labels" in drawn) == (protocol in ("A forced", "B on text"))
    assert drawn["alike_map"].heat.columns == ("0", "1", "2", "3")
    rows = [text for _, text in drawn["gap"].y.ticks]
    assert [row for row in rows if ":" in row] == [
        f"{name}: own token" for name in ("Forced answers", "Free answers", "Teacher-forced text")
    ]


def test_controls_stand_in_the_address(activation_home: Home, open_page: Open, drawn: dict[str, Any]) -> None:
    page = open_page(
        "sparse_activation", metric="KL(dense‖sparse)", keep="0.5", across="Model density", log="true",
        kinds=["Wrong label"], alike="Overlap of the kept",
    )  # fmt: skip
    assert not page.warning
    assert drawn["curves"].y.label == "KL(dense‖sparse)"
    assert drawn["curves"].y.log
    assert drawn["curves"].x.label == "Model density"
    assert all("wrong label" in label for label in labels(drawn["curves"]))
    assert "50%" in drawn["labels"].title
    assert "Overlap" in drawn["alike_map"].title


def test_a_bad_address_is_a_sentence(activation_home: Home, open_page: Open) -> None:
    page = open_page("sparse_activation", protocol="A force", metric="blue", keep="2")
    notices = " ".join(element.value for element in page.warning)
    assert "did you mean 'A forced'?" in notices
    assert "`blue`, which there is not" in notices
    assert "`2`, which there is not" in notices


def test_what_is_missing_is_said_with_the_sweep_that_makes_it(
    activation_home: Home, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Sweep, str]] = []

    def submit(home: Home, sweep: Sweep, kind: str) -> str:
        asked.append((sweep, kind))
        return write_run(home, [], "20260103-000000-asked-0000").name

    monkeypatch.setattr(client, "submit", submit)
    page = open_page("sparse_activation")
    assert "**sparse-activation-free**: 0 of 9 points stored. Protocol A as the paper has it" in said(page)
    page.button(key="run_sparse-activation-free").click().run()
    ((sweep, kind),) = asked
    assert (sweep.name, sweep.model, kind) == ("sparse-activation-free", MODEL, "sweep")
    assert [title.value for title in page.title] == ["Runs"]


def test_without_results_every_sweep_is_offered(empty_home: Home, open_page: Open) -> None:
    page = open_page("sparse_activation")
    assert "Nothing is stored yet that could test the claim on smollm2-135m" in said(page)
    offered = [button.key for button in page.button]
    assert {"run_sparse-activation-forced", "run_sparse-activation-ranks"} <= set(offered)
