"""Figures for papers: settings, layout, JSON."""

from __future__ import annotations

import json

import pytest

from backend.errors import UserError
from backend.figures import FigureSpec
from backend.figures.drawing import page as drawing
from backend.figures.paper import PALETTES, VENUES, PaperFigure, PaperSettings, to_page
from backend.figures.paper.figure import MOST_BYTES, MOST_PANELS
from backend.figures.paper.layout import with_settings
from tests.figures.paper_samples import bars_spec, curves_spec, every_kind, heat_spec, log_spec


def styled(spec: FigureSpec, **settings: object) -> FigureSpec:
    return with_settings(spec, PaperSettings.parse(settings, "settings"))


def test_a_figure_survives_json_and_keeps_its_id() -> None:
    figure = every_kind(venue="icml", span="column", palette="grey")
    again = PaperFigure.from_json(figure.to_json())
    assert again == figure
    assert again.id == figure.id
    assert again.to_json() == figure.to_json()


def test_the_id_follows_the_content() -> None:
    figure = every_kind()
    assert figure.id != figure.changed(caption="other").id
    assert len(figure.id) == 16


@pytest.mark.parametrize(
    ("venue", "span", "width"),
    [
        ("icml", "column", 3.25), ("icml", "page", 6.75), ("neurips", "page", 5.5), ("iclr", "column", 5.5),
        ("aaai", "column", 3.3), ("aaai", "page", 6.975), ("cvpr", "column", 3.25), ("cvpr", "page", 6.875),
        ("tmlr", "page", 6.5), ("acl", "column", 3.03), ("acl", "page", 6.3),
    ],
)  # fmt: skip
def test_widths_are_the_venues(venue: str, span: str, width: float) -> None:
    settings = PaperSettings(venue=venue, span=span)
    assert settings.width == width
    assert to_page(PaperFigure.of(curves_spec(), settings=settings)).width_in == width


def test_every_control_says_what_it_does_and_most_can_be_made_a_form_of() -> None:
    fields = PaperSettings.describe()
    assert all(field.help for field in fields)
    for name in ("width_in", "height_in", "font_size", "dpi"):
        field = next(field for field in fields if field.name == name)
        assert field.minimum is not None
        assert field.maximum is not None
        assert field.unit


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"venue": "icmll"}, "did you mean 'icml'"),
        ({"palette": "gray"}, "did you mean 'grey'"),
        ({"venue": "custom"}, "width_in"),
        ({"width_in": 4.0}, "custom"),
        ({"font_size": 3}, "font_size"),
        ({"colour": "red"}, "no setting 'colour'"),
    ],
)
def test_wrong_settings_are_sentences(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PaperSettings.parse(settings, "settings")


def test_parts_can_be_left_out() -> None:
    spec = curves_spec()
    assert "front" not in {s.name for s in styled(spec, front=False).series}
    assert not any(error for s in styled(spec, error_bars=False).series for error in s.y_err)
    without = next(s for s in styled(spec, dominated=False).series if s.name == "gate_pruning")
    whole = next(s for s in spec.series if s.name == "gate_pruning")
    assert without.x == tuple(x for x, faded in zip(whole.x, whole.faded, strict=True) if not faded)
    assert not any(without.faded)
    assert [line.role for line in styled(spec, claims=False).baselines] == ["baseline"]
    assert [line.role for line in styled(spec, baselines=False).baselines] == ["claim"]
    assert {s.kind for s in styled(spec, markers=False).series} == {"front", "curve"}
    assert styled(spec, directions=False).x.better is None


def test_the_palette_changes_colours_and_nothing_else() -> None:
    spec = styled(curves_spec(), palette="grey")
    for before, after in zip(curves_spec().series, spec.series, strict=True):
        assert after.style.colour == PALETTES["grey"].colour(before.style.colour)
        assert (after.style.marker, after.style.dash) == (before.style.marker, before.style.dash)
    heat = styled(heat_spec(), palette="grey").heat
    assert heat is not None
    assert heat.scale.kind == "grey"


def test_axes_can_be_made_logarithmic_and_linear() -> None:
    spec = styled(curves_spec(), x_scale="log", y_scale="log")
    assert spec.x.log
    assert spec.y.log
    assert spec.x.range is not None
    assert spec.x.range[0] > 0
    assert not styled(log_spec(), x_scale="linear").x.log
    assert styled(bars_spec(), y_scale="log").y == bars_spec().y


def test_panels_have_letters_and_share_axes() -> None:
    figure = PaperFigure.of(curves_spec(), curves_spec(), curves_spec(), curves_spec())
    panels = to_page(figure).panels
    assert [panel.heading[:3] for panel in panels] == ["(a)", "(b)", "(c)", "(d)"]
    assert [bool(panel.spec.y.label) for panel in panels] == [True, False, True, False]
    assert [bool(panel.spec.x.label) for panel in panels] == [False, False, True, True]
    own = to_page(figure.changed(settings=PaperSettings(shared_axes=False))).panels
    assert all(panel.spec.y.label for panel in own)


def test_one_legend_names_each_series_once() -> None:
    drawn = drawing.to_figure(to_page(PaperFigure.of(curves_spec(), curves_spec())))
    (legend,) = drawn.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == len(set(names)) == 4


@pytest.mark.parametrize("place", ["below", "above", "right", "inside", "none"])
def test_the_legend_goes_where_it_is_wanted(place: str) -> None:
    figure = drawing.to_figure(to_page(PaperFigure.of(curves_spec(), settings=PaperSettings(legend=place))))
    assert len(figure.legends) == (place in ("below", "above", "right"))
    assert (figure.axes[0].get_legend() is not None) == (place == "inside")


def test_series_can_have_other_names_on_paper() -> None:
    figure = PaperFigure.of(curves_spec(), bars_spec()).changed(labels={"Method 0": "Ours", "DIP": "Ours"})
    first, second = (panel.spec for panel in to_page(figure).panels)
    assert "Ours" in {series.label for series in first.series}
    assert second.y.ticks[0] == (0.0, "Ours")


def test_too_small_a_page_is_a_sentence() -> None:
    from backend.figures.paper.files import drawn

    figure = every_kind(height_in=0.8, columns=1)
    with pytest.raises(UserError, match="have no room"):
        drawn(figure, "png")


def test_too_many_panels_are_a_sentence() -> None:
    figure = PaperFigure.of(*[bars_spec()] * MOST_PANELS)
    with pytest.raises(UserError, match="at most 24"):
        figure.with_panels(bars_spec())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no figure of Sparsity Lens"),
        (b'{"format": "sparsity-lens-figure", "version": 2}', "version 2"),
        (b'{"format": "sparsity-lens-figure", "version": 1, "title": "x", "panels": []}', "panels"),
        (b" " * (MOST_BYTES + 1), "at most 8 MB"),
    ],
)
def test_a_broken_figure_json_is_a_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        PaperFigure.from_json(content)


def test_a_figure_json_with_wrong_numbers_is_refused() -> None:
    said = json.loads(every_kind().to_json())
    said["panels"][0]["spec"]["series"][1]["y"] = [1.0]
    with pytest.raises(UserError, match="y has 1 values"):
        PaperFigure.from_json(json.dumps(said).encode())
    said["settings"]["font_size"] = float("nan")
    with pytest.raises(UserError):
        PaperFigure.from_json(json.dumps(said).encode())


def test_venues_have_columns_where_they_say_so() -> None:
    assert {name for name, venue in VENUES.items() if venue.has_columns} == {"icml", "aaai", "cvpr", "acl"}
