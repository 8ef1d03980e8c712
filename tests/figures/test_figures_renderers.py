from __future__ import annotations

import io
from typing import Any

import pypdf
import pytest

from backend.figures import (
    Axis,
    Baseline,
    FigureSpec,
    Series,
    TradeOffOptions,
    at_cost,
    read_out,
    style_of,
    trade_off,
)
from backend.figures import matplotlib_renderer as paper
from backend.figures import plotly_renderer as screen
from backend.figures.metrics import COST, QUALITY
from backend.figures.palette import BLACK, GREY, LIGHT_GREY
from tests.figures.conftest import Sample


@pytest.fixture(params=["perplexity", "agreement", "logarithmic", "at one density"])
def spec(request: pytest.FixtureRequest, sample: Sample) -> FigureSpec:
    if request.param == "at one density":
        return at_cost(read_out(sample.points, sample.windows, 0.75), 0.75, "kl", "mlp_density", 0.0)
    if request.param == "logarithmic":
        return trade_off(sample.points, TradeOffOptions(log=True, cost="bytes_per_token"))
    return trade_off(sample.points, TradeOffOptions(quality=request.param))


def drawn_on_screen(spec: FigureSpec) -> list[dict[str, Any]]:
    return [
        {
            "label": trace.name.replace("<br>", " "),  # a legend breaks long names
            "x": list(trace.x),
            "y": list(trace.y),
            "x_err": list(trace.error_x.array or []),
            "y_err": list(trace.error_y.array or []),
        }
        for trace in screen.to_plotly(spec).data
    ]


def drawn_on_paper(spec: FigureSpec) -> list[dict[str, Any]]:
    axes = paper.to_figure(spec).axes[0]
    bars = {container.get_label(): container for container in axes.containers}
    drawn = []
    for series in spec.series:
        if series.kind == "front":
            line = next(line for line in axes.lines if line.get_label() == series.label)
            x_err, y_err = [], []
        else:
            line, _, spans = bars[series.label].lines
            halves = [[(s[1] - s[0]) / 2 for s in span.get_segments()] for span in spans]
            x_err = [half[0] for half in halves[0]] if any(series.x_err) else []
            y_err = [half[1] for half in halves[-1]] if any(series.y_err) else []
        drawn.append(
            {
                "label": series.label,
                "x": [float(x) for x in line.get_xdata()],
                "y": [float(y) for y in line.get_ydata()],
                "x_err": x_err,
                "y_err": y_err,
            }
        )
    return drawn


def test_both_renderers_draw_the_same_data(spec: FigureSpec) -> None:
    on_screen, on_paper = drawn_on_screen(spec), drawn_on_paper(spec)
    assert [s["label"] for s in on_screen] == [s["label"] for s in on_paper] == [s.label for s in spec.series]
    for one, other in zip(on_screen, on_paper, strict=True):
        for key in ("x", "y", "x_err", "y_err"):
            assert one[key] == pytest.approx(other[key], rel=1e-9, abs=1e-9), (one["label"], key)


def test_both_renderers_show_the_same_axes(spec: FigureSpec) -> None:
    layout, axes = screen.to_plotly(spec).layout, paper.to_figure(spec).axes[0]
    for axis, drawn, limits, scale in (
        (spec.x, layout.xaxis, axes.get_xlim(), axes.get_xscale()),
        (spec.y, layout.yaxis, axes.get_ylim(), axes.get_yscale()),
    ):
        assert (scale == "log") == (drawn.type == "log") == axis.log
        assert axis.label in drawn.title.text
        if axis.range:
            ends = [10**end for end in drawn.range] if axis.log else drawn.range
            assert list(ends) == pytest.approx(list(limits))


def test_the_pdf_has_the_exact_size_and_an_embedded_font(spec: FigureSpec) -> None:
    page = pypdf.PdfReader(io.BytesIO(paper.to_bytes(spec, "pdf", width=3.25, height=2.5))).pages[0]
    assert (float(page.mediabox.width), float(page.mediabox.height)) == (3.25 * 72, 2.5 * 72)
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        assert "STIX" in font["/BaseFont"]
        descendant = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
        assert "/FontFile2" in descendant["/FontDescriptor"].get_object()


@pytest.mark.parametrize("format", ["pdf", "svg", "png"])
def test_the_same_spec_gives_the_same_bytes(spec: FigureSpec, format: paper.Format) -> None:
    assert paper.to_bytes(spec, format) == paper.to_bytes(spec, format)


def test_the_png_has_300_dots_an_inch(spec: FigureSpec) -> None:
    png = paper.to_bytes(spec, "png", width=3.0, height=2.0)
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (900, 600)


def test_text_in_the_svg_stays_text(spec: FigureSpec) -> None:
    assert spec.x.label.split("(")[0] in paper.to_bytes(spec, "svg").decode()


@pytest.mark.filterwarnings("error:.*Glyph.*")
def test_the_font_has_every_character_of_our_axes() -> None:
    series = Series(name="dip", label="ρ Δ γ → × ± ‖ − ≤ %", style=style_of("dip"), x=(1.0,), y=(1.0,))
    for metric in (*QUALITY.values(), *COST.values()):
        axis = Axis(label=metric.label, unit=metric.unit, better=metric.better)
        paper.to_bytes(FigureSpec(title="t", x=axis, y=axis, series=(series, series)), "pdf")


def test_a_dark_page_gets_light_grey_for_black(sample: Sample) -> None:
    spec = trade_off(sample.points)
    dark = {trace.name: trace.line.color for trace in screen.to_plotly(spec, dark=True).data}
    light = {trace.name: trace.line.color for trace in screen.to_plotly(spec).data}
    assert (light["Random (control)"], dark["Random (control)"]) == (BLACK, LIGHT_GREY)
    assert light["DIP"] == dark["DIP"] == style_of("dip").colour


def test_dominated_points_are_grey_in_both(sample: Sample) -> None:
    spec = trade_off(sample.points)
    series = next(s for s in spec.series if s.name == "gate_pruning")
    trace = next(t for t in screen.to_plotly(spec).data if t.name == series.label)
    assert [colour == GREY for colour in trace.marker.color] == list(series.faded)
    grey = [
        (float(x), float(y))
        for line in paper.to_figure(spec).axes[0].lines
        if line.get_markerfacecolor() == GREY and line.get_marker() == "s"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]
    assert grey == [(x, y) for x, y, faded in zip(series.x, series.y, series.faded, strict=True) if faded]


def labelled(labels: list[str]) -> FigureSpec:
    series = [Series(name=label, label=label, style=style_of("dip"), x=(1.0,), y=(1.0,)) for label in labels]
    return FigureSpec(title="t", x=Axis(label="x"), y=Axis(label="y"), series=tuple(series))


def test_a_long_legend_makes_the_figure_higher_not_the_plot_smaller() -> None:
    few, many = labelled(["Dense", "DIP"]), labelled([f"Method {place}" for place in range(6)])
    assert screen.to_plotly(few, height=480).layout.height == 480
    assert screen.to_plotly(many, height=480).layout.height >= 480 + 5 * 19
    assert screen.to_plotly(many, height=480, legend=False).layout.height == 480
    assert screen.to_plotly(labelled(many_words() * 20), height=480).layout.height <= 1.3 * 480


def many_words() -> list[str]:
    return ["Corrected GxO (oracle label: own greedy token, ranked over all layers)"]


def test_a_long_name_stands_in_short_lines_in_the_legend() -> None:
    (trace,) = screen.to_plotly(labelled(many_words())).data
    lines = trace.name.split("<br>")
    assert " ".join(lines) == many_words()[0]
    assert len(lines) > 1
    assert max(map(len, lines)) <= 38
    (trace,) = screen.to_plotly(labelled(["DIP-CA, caches 39 %, γ 0.3"])).data
    assert trace.name == "DIP-CA, caches 39 %,<br>γ 0.3", "a number stays with its name"


def test_names_cannot_bring_markup_to_the_page() -> None:
    evil = "<img src=x onerror=alert(1)>"
    series = Series(
        name="x", label=evil, style=style_of("dip"), x=(1.0,), y=(1.0,), ids=(evil,), details=(evil,)
    )
    spec = FigureSpec(
        title=evil,
        x=Axis(label=evil),
        y=Axis(label="y"),
        series=(series,),
        baselines=(Baseline(value=1, label=evil),),
    )
    assert "<img" not in screen.to_plotly(spec).to_json().replace(evil.replace('"', '\\"'), "", 1)
    assert "<title><img" not in screen.to_html(spec).decode()


def test_the_html_needs_nothing_from_the_network(spec: FigureSpec) -> None:
    page = screen.to_html(spec).decode()
    assert "<script src=" not in page
    assert '"showSendToCloud": false' in page
    assert '"displaylogo": false' in page


def test_an_empty_figure_can_be_drawn() -> None:
    spec = FigureSpec(title="nothing", x=Axis(label="x"), y=Axis(label="y"), series=())
    assert not screen.to_plotly(spec).data
    assert paper.to_bytes(spec, "png")
