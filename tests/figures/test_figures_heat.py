from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from backend.figures import Axis, ColourScale, FigureSpec, HeatMap, Series, style_of
from backend.figures import matplotlib_renderer as paper
from backend.figures import plotly_renderer as screen
from backend.figures.drawing.scales import STOPS, colour_at, ink_on, limits

ROWS = ("Gate <score>", "Up & down", "Oracle")


def heat_spec(kind: str = "sequential", columns: int = 30, **more: object) -> FigureSpec:
    values = tuple(
        tuple(
            None if (r, c) == (1, 3) else math.sin(0.3 * c + r) * (r + 1) for c in range(columns)
        )
        for r in range(len(ROWS))
    )  # fmt: skip
    scale = ColourScale(label="ΔNLL", unit="nats/token", better="lower", kind=kind)
    heat = HeatMap(rows=ROWS, columns=tuple(map(str, range(columns))), values=values, scale=scale, **more)
    return FigureSpec(title="By layer", x=Axis(label="Layer"), y=Axis(label="Metric"), heat=heat)


def test_a_heat_map_survives_json() -> None:
    spec = heat_spec()
    assert FigureSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("kind", ["sequential", "diverging"])
def test_both_renderers_draw_the_same_cells_and_colours(kind: str) -> None:
    spec = heat_spec(kind)
    assert spec.heat
    wanted = np.array([[np.nan if v is None else v for v in row] for row in spec.heat.values])
    (trace,) = screen.to_plotly(spec).data
    np.testing.assert_array_equal(
        np.array([[np.nan if v is None else v for v in r] for r in trace.z]), wanted
    )
    axes, bar = paper.to_figure(spec).axes
    (mesh,) = axes.collections
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan), wanted)
    assert mesh.get_clim() == (trace.zmin, trace.zmax) == limits(spec.heat.scale, spec.heat.values)
    assert bar.get_ylabel() == spec.heat.scale.title
    assert [stop.upper() for _, stop in trace.colorscale] == list(STOPS[kind])
    for share in (0.0, 0.3, 0.5, 1.0):
        # Matplotlib's map has 256 steps.
        assert mesh.get_cmap()(share)[:3] == pytest.approx(colour_at(kind, share), abs=0.01)


def test_the_first_row_is_on_top_in_both() -> None:
    spec = heat_spec()
    axes = paper.to_figure(spec).axes[0]
    low, high = axes.get_ylim()
    assert low > high
    assert screen.to_plotly(spec).layout.yaxis.range == (2.5, -0.5)
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ROWS)


def test_a_diverging_scale_is_as_wide_on_both_sides() -> None:
    scale = ColourScale(label="d", kind="diverging", centre=1.0)
    assert limits(scale, [[0.5, 3.0, None]]) == (-1.0, 3.0)
    assert limits(ColourScale(label="s"), [[None]]) == (0.0, 1.0)
    low, high = limits(ColourScale(label="s"), [[2.0]])
    assert low < 2 < high


def test_lightness_of_the_sequential_scale_falls_throughout() -> None:
    grey = [np.dot(colour_at("sequential", share), (0.299, 0.587, 0.114)) for share in np.linspace(0, 1, 101)]
    assert (np.diff(grey) < 0).all()


def test_the_ink_on_a_cell_has_contrast() -> None:
    assert (ink_on((1, 1, 0.85)), ink_on((0.03, 0.11, 0.35))) == ("#000000", "#FFFFFF")


def test_its_data_and_its_sentence() -> None:
    spec = heat_spec()
    assert len(spec.frame()) == 90
    assert list(spec.frame()) == ["row", "column", "value"]
    assert spec.csv().decode().splitlines()[0] == 'Metric,Layer,"ΔNLL (nats/token, lower is better)"'
    assert "3 rows (Metric) and 30 columns (Layer); 1 without a value" in spec.alt()


def test_what_is_no_rectangle_is_refused() -> None:
    scale = ColourScale(label="x")
    with pytest.raises(ValidationError, match="rows"):
        HeatMap(rows=("a", "b"), columns=("c",), values=((1.0,),), scale=scale)
    with pytest.raises(ValidationError, match="columns"):
        HeatMap(rows=("a",), columns=("c",), values=((1.0, 2.0),), scale=scale)
    with pytest.raises(ValidationError, match="low to high"):
        ColourScale(label="x", range=(1.0, 1.0))
    series = Series(name="dip", label="DIP", style=style_of("dip"), x=(1.0,), y=(1.0,))
    with pytest.raises(ValidationError, match="stands alone"):
        heat_spec().model_validate(heat_spec().model_dump() | {"series": [series.model_dump()]})


def test_names_of_cells_cannot_bring_markup_to_the_page() -> None:
    assert "<score>" not in screen.to_plotly(heat_spec()).to_json()


def test_few_cells_can_show_their_values() -> None:
    axes = paper.to_figure(heat_spec(columns=5, show_values=True)).axes[0]
    assert len(axes.texts) == 14
    assert paper.to_bytes(heat_spec(columns=0), "png")
