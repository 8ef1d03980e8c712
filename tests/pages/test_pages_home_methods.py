from __future__ import annotations

import pytest

from backend.home import Home
from backend.methods import every_method
from tests.figures.figures_samples import cell, policies, write_run
from tests.pages.conftest import Open


def test_home_says_what_the_results_say(results_home: Home, open_page: Open) -> None:
    page = open_page("home")
    said = " ".join(markdown.value for markdown in page.markdown)
    assert "DIP reads 90 % of the MLP weights" in said
    assert "nats/token less than Up pruning" in said
    assert "GLU (oracle)" in said
    assert "dequantised from Q4_1" in said
    assert "The worker is not running" in said
    assert {metric.label: metric.value for metric in page.metric}["Points"] == str(len(policies()))


def test_home_says_nothing_that_was_not_measured(empty_home: Home, open_page: Open) -> None:
    write_run(empty_home, [cell(policies()[0])])
    page = open_page("home")
    assert "too few points" in page.info[0].value


def test_the_first_sweep_opens_filled_in(results_home: Home, open_page: Open) -> None:
    page = open_page("home")
    next(button for button in page.button if button.label == "Run a first sweep").click().run()
    assert not page.exception
    assert page.title[0].value == "Runs"
    assert page.text_input(key="name").value == "first-sweep"
    assert page.multiselect(key="methods").value == ["DIP", "Gate pruning"]
    assert page.number_input(key="tokens").value == 2048


@pytest.mark.parametrize("name", list(every_method()))
def test_every_method_is_described(name: str, empty_home: Home, open_page: Open) -> None:
    method = every_method()[name]
    page = open_page("methods", method=method.title)
    assert page.header[0].value == method.title
    said = " ".join(markdown.value for markdown in page.markdown)
    assert getattr(method, "density_formula", "") in said
    assert ("MLP density" in said) == (method.kind == "mask")
    assert method.equation.split(",")[0] in said
    assert method.summary in said
    assert method.limits in said
    if method.describe():
        assert list(page.table[0].value["Setting"]) == [field.name for field in method.describe()]
        assert all(page.table[0].value["What it does"])


def test_papers_are_links(empty_home: Home, open_page: Open) -> None:
    page = open_page("methods", method="Up pruning")
    said = next(m.value for m in page.markdown if m.value.startswith("**Paper.**"))
    assert "[2412.01380](https://arxiv.org/abs/2412.01380)" in said
    assert "[2505.17701](https://arxiv.org/abs/2505.17701)" in said
