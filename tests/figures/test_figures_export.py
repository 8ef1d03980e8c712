"""Files of a figure: exact size, fonts, valid SVG, the same bytes, the same data in every renderer."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pypdf
import pytest

from backend.errors import UserError
from backend.figures.drawing.page import Format
from backend.figures.paper import PaperFigure, PaperSettings, to_page
from backend.figures.paper import data as paper_data
from backend.figures.paper.export import write_figure
from backend.figures.paper.files import drawn, interactive
from backend.figures.plotly_page import page_to_plotly
from tests.figures.paper_samples import EVIL, curves_spec, every_kind


@pytest.mark.parametrize(("venue", "span"), [("icml", "column"), ("neurips", "page"), ("acl", "page")])
def test_the_pdf_is_as_wide_as_the_venue_wants(venue: str, span: str) -> None:
    figure = every_kind(venue=venue, span=span)
    page = pypdf.PdfReader(io.BytesIO(drawn(figure, "pdf"))).pages[0]
    assert float(page.mediabox.width) / 72 == pytest.approx(figure.settings.width, abs=0.01)


def test_the_pdfs_fonts_are_embedded_serifs_and_none_is_type_3() -> None:
    page = pypdf.PdfReader(io.BytesIO(drawn(every_kind(), "pdf"))).pages[0]
    fonts = [font.get_object() for font in page["/Resources"]["/Font"].values()]
    assert fonts
    for font in fonts:
        assert font["/Subtype"] != "/Type3"
        assert "STIXGeneral" in font["/BaseFont"]
        inner = font["/DescendantFonts"][0].get_object() if "/DescendantFonts" in font else font
        assert "/FontFile2" in inner["/FontDescriptor"].get_object()


@pytest.mark.skipif(shutil.which("pdffonts") is None, reason="poppler-utils is not installed")
def test_pdffonts_agrees(tmp_path: Path) -> None:
    path = tmp_path / "figure.pdf"
    path.write_bytes(drawn(every_kind(), "pdf"))
    listed = subprocess.run(["pdffonts", path], capture_output=True, text=True, check=True).stdout
    rows = listed.splitlines()[2:]
    assert rows
    for row in rows:
        assert "STIXGeneral" in row
        assert re.search(r"(TrueType|CID TrueType)\s+\S.*\byes yes\b", row), row


def test_text_in_the_pdf_can_be_selected() -> None:
    text = pypdf.PdfReader(io.BytesIO(drawn(PaperFigure.of(curves_spec()), "pdf"))).pages[0].extract_text()
    for words in ("Perplexity", "Density", "Method 0", "Dense", EVIL):
        assert words in text


def test_the_svg_is_valid_and_its_text_is_text() -> None:
    figure = every_kind()
    root = ET.fromstring(drawn(figure, "svg"))
    assert root.tag.endswith("svg")
    assert float(root.attrib["width"].removesuffix("pt")) / 72 == pytest.approx(
        figure.settings.width, abs=0.01
    )
    texts = {"".join(each.itertext()) for each in root.iter() if each.tag.endswith("}text")}
    assert {"Pareto front", EVIL} <= texts
    referenced = set(re.findall(r"(?:href=\"#|url\(#)([\w-]+)", drawn(figure, "svg").decode()))
    assert referenced <= {each.attrib["id"] for each in root.iter() if "id" in each.attrib}


@pytest.mark.parametrize("format", ["pdf", "svg", "png"])
def test_the_same_figure_gives_the_same_bytes(format: Format) -> None:
    assert drawn(every_kind(), format) == drawn(every_kind(), format)


def test_the_png_has_the_wanted_resolution() -> None:
    png = drawn(PaperFigure.of(curves_spec(), settings=PaperSettings(dpi=100)), "png")
    assert int.from_bytes(png[16:20]) == 550


def test_the_screen_draws_the_same_numbers_as_paper() -> None:
    page = to_page(every_kind())
    traces = page_to_plotly(page, "t").data
    drawn_series = [t for t in traces[:-1] if t.type != "heatmap"]
    wanted = [series for panel in page.panels for series in panel.spec.series]
    assert [(t.name, list(t.x), list(t.y)) for t in drawn_series] == [
        (t.name, list(s.x), list(s.y)) for t, s in zip(drawn_series, wanted, strict=True)
    ]
    (heat,) = [t for t in traces if t.type == "heatmap"]
    values = page.panels[2].spec.heat.values if page.panels[2].spec.heat else ()
    assert [list(row) for row in heat.z] == [list(row) for row in values]
    strip = page.panels[4].spec.strip
    assert strip is not None
    assert tuple(traces[-1].customdata) == strip.values


def test_the_html_works_alone_and_its_names_bring_no_markup() -> None:
    text = interactive(every_kind()).decode()
    assert "<script src=" not in text
    assert '"showSendToCloud": false' in text
    assert "<z>" not in text


def test_csv_and_parquet_hold_the_same_numbers() -> None:
    frame = paper_data.data_frame(to_page(every_kind()))
    parquet = pd.read_parquet(io.BytesIO(paper_data.to_parquet(frame)))
    pd.testing.assert_frame_equal(parquet, frame)
    read = pd.read_csv(io.BytesIO(paper_data.to_csv(frame)))
    for name in ("x", "y", "y_stderr", "value"):
        pd.testing.assert_series_equal(read[name], frame[name])


def test_files_go_to_a_folder_and_stay_untouched_where_nothing_changed(tmp_path: Path) -> None:
    figure = PaperFigure.of(curves_spec())
    names = write_figure(figure, tmp_path / "out", html=True)
    assert {"quality.pdf", "quality.svg", "quality.png", "quality.zip", "quality.html", "table.tex"} <= set(
        names
    )
    before = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names}
    write_figure(figure, tmp_path / "out", html=True)
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in names} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_figure(figure, tmp_path / "file")
