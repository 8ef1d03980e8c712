from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.figures.paper import PaperFigure, PaperSettings
from backend.figures.paper.saved import load, save, saved
from backend.figures.recipes import RECIPES
from backend.home import Home
from pages._shared.paper_controls import FIRST, GROUPS
from tests.figures.paper_samples import curves_spec, every_kind, heat_spec
from tests.pages.conftest import Open


@dataclass
class Shown:
    """What the page shows of a figure."""

    id: str
    picture: str


def shown(page: AppTest) -> Shown:
    """Return the open figure's id and its preview."""
    assert not page.exception
    assert not page.error
    given = page.query_params["figure"]
    return Shown(given if isinstance(given, str) else given[0], _preview(page))


def settings(home: Home, page: AppTest) -> PaperSettings:
    return load(home, shown(page).id).settings


@pytest.fixture
def figure(results_home: Home) -> PaperFigure:
    made = PaperFigure.of(curves_spec(), curves_spec(), title="Two panels")
    save(results_home, made)
    return made


def test_every_setting_has_one_control() -> None:
    names = [*FIRST, *(name for group in GROUPS.values() for name in group)]
    assert sorted(names) == sorted(PaperSettings.model_fields)


CHANGES: dict[str, Any] = {
    "venue": "icml", "height_in": 4.5, "font_size": 9.0, "palette": "grey", "markers": False,
    "error_bars": False, "dominated": False, "front": False, "baselines": False, "claims": False,
    "legend": "right", "grid": "none", "x_scale": "log", "y_scale": "log", "shared_axes": False,
    "directions": False, "title": True, "titles": False, "letters": False, "columns": 1,
    "line_width": 2.0, "marker_size": 6.0,
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_control_changes_the_figure_and_its_preview(
    name: str, figure: PaperFigure, results_home: Home, open_page: Open
) -> None:
    page = open_page("paper", figure=figure.id)
    before = shown(page)
    assert before.id == figure.id
    _set(page, name, CHANGES[name])
    after = shown(page)
    assert after.id != before.id
    assert after.picture != before.picture
    assert getattr(settings(results_home, page), name) == CHANGES[name]
    again = open_page("paper", figure=after.id)
    assert shown(again) == after
    assert load(results_home, figure.id) == figure, "what was saved on purpose stays"


def test_the_resolution_changes_the_file_and_not_the_preview(figure: PaperFigure, open_page: Open) -> None:
    page = open_page("paper", figure=figure.id)
    before = shown(page)
    _set(page, "dpi", 600)
    after = shown(page)
    assert after.id != before.id
    assert after.picture == before.picture


def test_columns_and_widths_follow_the_venue(
    figure: PaperFigure, results_home: Home, open_page: Open
) -> None:
    page = open_page("paper", figure=figure.id)
    assert "5.5 × " in _size(page)
    assert "paper_set_span" not in [box.key for box in page.selectbox]
    _set(page, "venue", "cvpr")
    assert "6.875 × " in _size(page)
    _set(page, "span", "column")
    assert "3.25 × " in _size(page)
    _set(page, "venue", "custom")
    _set(page, "width_in", 4.2)
    assert "4.2 × " in _size(page)
    _set(page, "venue", "tmlr")
    assert "6.5 × " in _size(page)
    assert settings(results_home, page).width_in is None


def test_a_change_takes_the_place_of_the_one_before(
    figure: PaperFigure, results_home: Home, open_page: Open
) -> None:
    page = open_page("paper", figure=figure.id)
    for size in (9.0, 9.5, 10.0):
        _set(page, "font_size", size)
    assert len(saved(results_home)) == 2
    middle = PaperSettings(font_size=9.5)
    page.query_params["figure"] = figure.changed(settings=middle).id
    page.run()
    assert shown(page).id == figure.changed(settings=middle).id, "Back undoes a change"
    assert page.number_input(key="paper_set_font_size").value == 9.5


def test_panels_are_named_moved_and_removed(results_home: Home, open_page: Open) -> None:
    made = PaperFigure.of(curves_spec(), heat_spec(), title="Two kinds")
    save(results_home, made)
    page = open_page("paper", figure=made.id)
    page.text_input(key="paper_set_heading_1").set_value("Layers").run()
    page.button(key="paper_up_1").click().run()
    assert [panel.title for panel in load(results_home, shown(page).id).panels] == ["Layers", "Quality"]
    assert page.text_input(key="paper_set_heading_0").value == "Layers"
    page.button(key="paper_down_0").click().run()
    page.button(key="paper_remove_0").click().run()
    assert [panel.title for panel in load(results_home, shown(page).id).panels] == ["Layers"]
    page.text_input(key="paper_set_title_text").set_value("Renamed").run()
    assert load(results_home, shown(page).id).stem == "renamed"


def test_panels_are_composed_of_stored_results(results_home: Home, open_page: Open) -> None:
    page = open_page("paper")
    assert saved(results_home) == [], "the first view is saved when it is changed"
    page.selectbox(key="paper_kind").set_value("read_out").run()
    page.number_input(key="paper_compose_read_out_at").set_value(0.6).run()
    page.selectbox(key="paper_compose_read_out_quality").set_value("kl").run()
    page.button(key="paper_compose_add").click().run()
    both = load(results_home, shown(page).id)
    assert len(both.panels) == 2
    assert both.panels[1].spec.x.label == "KL(dense‖sparse)"
    assert [run.run for run in both.runs], "it knows its runs"
    page.button(key="paper_compose_new").click().run()
    alone = load(results_home, shown(page).id)
    assert [panel.spec for panel in alone.panels] == [both.panels[1].spec]
    assert [each.panels for each in saved(results_home)] == [1, 2]


@pytest.mark.parametrize("kind", RECIPES)
def test_every_kind_of_panel_has_a_form(kind: str, results_home: Home, open_page: Open) -> None:
    page = open_page("paper")
    page.selectbox(key="paper_kind").set_value(kind).run()
    assert not page.exception
    assert not page.error
    keys = [str(each.key) for each in [*page.selectbox, *page.number_input, *page.multiselect, *page.toggle]]
    assert any(key.startswith(f"paper_compose_{kind}_") for key in keys)


def test_what_is_not_stored_is_a_sentence(empty_home: Home, open_page: Open) -> None:
    page = open_page("paper")
    assert not page.error
    page.button(key="paper_compose_new").click().run()
    assert page.error[0].value.startswith("No results are stored")
    assert not page.exception


@pytest.mark.parametrize("id", ["0123456789abcdef", "../../etc/passwd", "![x](http://host/p.png)"])
def test_an_unknown_figure_is_a_sentence_and_the_list(id: str, figure: PaperFigure, open_page: Open) -> None:
    page = open_page("paper", figure=id)
    assert page.warning[0].value == (
        f"No figure is saved as `{id}`; it may have been saved in another home. Choose one of the list."
    )
    picker = page.selectbox(key="paper_pick")
    assert picker.value is None
    picker.set_value(figure.id).run()
    assert shown(page).id == figure.id


def test_a_figure_comes_in_from_a_file(results_home: Home, open_page: Open) -> None:
    page = open_page("paper")
    page.file_uploader[0].set_value(("figure.json", every_kind().to_json(), "application/json")).run()
    assert shown(page).id == every_kind().id
    assert load(results_home, every_kind().id) == every_kind()
    _set(page, "font_size", 9.0)
    assert shown(page).id != every_kind().id, "the file in its control is not imported again"


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"format": "sparsity-lens-figure", "version": 1}'])
def test_a_broken_file_is_a_sentence(content: bytes, results_home: Home, open_page: Open) -> None:
    page = open_page("paper")
    page.file_uploader[0].set_value(("figure.json", content or b" ", "application/json")).run()
    assert len(page.error) == 1
    assert page.error[0].value.endswith(".")
    assert not page.exception
    assert saved(results_home) == []


def test_a_figure_is_deleted(figure: PaperFigure, results_home: Home, open_page: Open) -> None:
    page = open_page("paper", figure=figure.id)
    page.button(key="paper_delete").click().run()
    assert not page.exception
    assert saved(results_home) == []


def test_panels_without_room_are_a_sentence(figure: PaperFigure, open_page: Open) -> None:
    page = open_page("paper", figure=figure.id)
    _set(page, "height_in", 0.8)
    assert "have no room" in page.error[0].value
    assert not page.exception
    _set(page, "height_in", 3.0)
    assert not page.error


def test_one_click_takes_a_figure_to_paper(results_home: Home, open_page: Open) -> None:
    page = open_page("trade_offs", quality="KL(dense‖sparse)")
    assert "trade_off_panel" not in [button.key for button in page.button]
    page.button(key="trade_off_paper").click().run()
    assert page.title[0].value == "Paper"
    first = load(results_home, shown(page).id)
    assert first.title == "KL(dense‖sparse) against MLP density"
    assert [run.run for run in first.runs] == list(first.panels[0].spec.provenance.runs)
    page.switch_page("pages/trade_offs.py").run()
    page.button(key="at_cost_panel").click().run()
    assert page.title[0].value == "Paper"
    assert len(load(results_home, shown(page).id).panels) == 2


def _set(page: AppTest, name: str, value: Any) -> None:
    key = f"paper_set_{name}"
    kinds = {bool: page.toggle, str: page.selectbox}
    found = kinds.get(type(value), page.number_input)
    found(key=key).set_value(value).run()
    assert not page.exception


def _preview(page: AppTest) -> str:
    return next(each.proto.body for each in page.get("html") if "data:image/png" in each.proto.body)


def _size(page: AppTest) -> str:
    return next(caption.value for caption in page.caption if "true size at 100 % zoom" in caption.value)
