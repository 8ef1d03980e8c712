from __future__ import annotations

import io
import re
from pathlib import Path

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from backend.residency import parse_route_trace
from docs.screenshots import CHART_MILLISECONDS, settle
from tests.browser.conftest import Visit
from tests.figures.moe_samples import LABEL, record, trace_text

pytestmark = pytest.mark.browser
PATH = "mixture_of_experts"
TRACE = "device.csv (imported trace)"


def test_the_cache_slider_changes_the_address_and_the_read_out(visit: Visit) -> None:
    page = visit.open(PATH, routing=LABEL, slots="6")
    rate = page.get_by_test_id("stMetricValue").first
    six, ten = (f"{record().curve('lru').miss_rate(slots):.1%}" for slots in (6, 10))
    expect(rate).to_have_text(six)
    slider = page.get_by_role("slider", name="Cache size (experts a layer)")
    slider.focus()
    for _ in range(4):
        slider.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"[?&]slots=10\b"))
    expect(rate).to_have_text(ten)
    page.goto(page.url)
    settle(page)
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(ten)
    assert visit.console == []
    assert visit.outside() == []


def test_the_strength_slider_changes_what_re_routing_costs(visit: Visit) -> None:
    page = visit.open(PATH, routing=LABEL, slots="8")
    slider = page.get_by_role("slider", name="λ (stored grid)")
    slider.focus()
    slider.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"strength_cache_prior=0\.3"))
    expect(page.get_by_text("Cache-Prior, λ 0.3, measured, caches of 8 experts")).to_be_visible()
    assert visit.console == []


def test_a_trace_is_taken_in_and_written_out(visit: Visit, tmp_path: Path) -> None:
    page = visit.open(PATH, routing=LABEL)
    file = tmp_path / "mine.csv"
    file.write_text(trace_text().replace("0.25", "0.2"))
    page.get_by_role("button", name="Import a trace").click()
    page.locator(".st-key-trace_file input[type=file]").set_input_files(str(file))
    expect(page).to_have_url(re.compile(r"routing=mine\.csv"), timeout=CHART_MILLISECONDS)
    settle(page)
    expect(page.get_by_text("not available for an imported trace")).to_be_visible()
    with page.expect_download(timeout=CHART_MILLISECONDS) as download:
        page.get_by_role("button", name="Export as a trace").click()
    back = parse_route_trace("back.csv", download.value.path().read_bytes())
    assert back.chosen == parse_route_trace("mine.csv", file.read_bytes()).chosen
    page.get_by_role("button", name="Remove this trace").click()
    expect(page.get_by_text("mine.csv (imported trace)")).to_have_count(0)


def test_a_file_that_is_no_trace_is_a_sentence(visit: Visit, tmp_path: Path) -> None:
    page = visit.open(PATH, routing=LABEL)
    file = tmp_path / "no.csv"
    file.write_text("a,b\n<img src=x onerror=alert(1)>,2\n")
    page.get_by_role("button", name="Import a trace").click()
    page.locator(".st-key-trace_file input[type=file]").set_input_files(str(file))
    expect(page.get_by_text("no routing trace")).to_be_visible(timeout=CHART_MILLISECONDS)
    assert visit.outside() == []


@pytest.mark.parametrize("figure", ["misses", "front", "traffic", "lifetimes"])
def test_every_figure_can_be_taken_into_a_paper(figure: str, visit: Visit) -> None:
    page = visit.open(PATH, routing=LABEL)
    page.locator(f".st-key-{figure}_export button").first.click()
    with page.expect_download(timeout=CHART_MILLISECONDS) as download:
        page.get_by_role("button", name="PDF", exact=True).click()
    sheet = pypdf.PdfReader(io.BytesIO(download.value.path().read_bytes())).pages[0]
    assert float(sheet.mediabox.width) / 72 == pytest.approx(5.5, abs=1e-3)
    fonts = [font.get_object()["/BaseFont"] for font in sheet["/Resources"]["/Font"].values()]
    assert fonts
    assert all("STIX" in font for font in fonts)


@pytest.mark.parametrize("routing", [LABEL, TRACE])
def test_axe_finds_nothing(routing: str, visit_in: Visit) -> None:
    page = visit_in.open(PATH, routing=routing)
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found] == []
