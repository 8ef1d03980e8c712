from __future__ import annotations

import io
import re

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from docs.screenshots import CHART_MILLISECONDS, settle
from tests.browser.conftest import Visit
from tests.figures.memory_samples import SOURCE

pytestmark = pytest.mark.browser
PATH = "dip_memory"


def test_the_dram_slider_changes_the_address_and_the_read_out(visit: Visit) -> None:
    page = visit.open(PATH, source=SOURCE, density="0.9")
    speed = page.get_by_test_id("stMetricValue").first
    before = speed.inner_text()
    slider = page.get_by_role("slider", name="DRAM for the model (GB)")
    slider.focus()
    for _ in range(5):
        slider.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"[?&]dram=4\.1\b"))
    expect(page.get_by_test_id("stMetricValue").nth(2)).to_have_text("4.1 GB")
    moved = speed.inner_text()
    assert float(moved) > float(before)
    page.goto(page.url)
    settle(page)
    expect(page.get_by_test_id("stMetricValue").first).to_have_text(moved)
    assert visit.console == []
    assert visit.outside() == []


def test_the_preset_brings_the_headline_back(visit: Visit) -> None:
    page = visit.open(PATH, source=SOURCE, shape="mistral-7b", io="Overlapped", paper="false")
    page.get_by_role("button", name="Phi-3-Medium in 4 GB").click()
    expect(page.get_by_test_id("stMetricValue").nth(1)).to_have_text("0.293")
    assert "shape=" not in page.url
    assert visit.console == []


def test_a_link_with_its_own_flash_shows_that(visit: Visit) -> None:
    page = visit.open(PATH, source=SOURCE, own_flash="true", flash="2.5")
    bandwidth = page.get_by_role("slider", name="Flash bandwidth (GB/s)")
    expect(bandwidth).to_be_visible()
    page.get_by_text("Own Flash bandwidth", exact=True).click()
    expect(bandwidth).to_have_count(0)
    expect(page.get_by_text("Bundle up and gate", exact=True)).to_be_visible()
    settle(page)
    assert "own_flash" not in page.url
    assert visit.console == []


@pytest.mark.parametrize(
    ("figure", "width", "height"), [("speed", 5.5, 3.4), ("hits", 5.5, 3.4), ("time", 5.5, 2.2)]
)
def test_every_figure_can_be_taken_into_a_paper(
    figure: str, width: float, height: float, visit: Visit
) -> None:
    page = visit.open(PATH, source=SOURCE)
    page.locator(f".st-key-{figure}_export button").first.click()
    with page.expect_download(timeout=CHART_MILLISECONDS) as download:
        page.get_by_role("button", name="PDF", exact=True).click()
    sheet = pypdf.PdfReader(io.BytesIO(download.value.path().read_bytes())).pages[0]
    size = (float(sheet.mediabox.width) / 72, float(sheet.mediabox.height) / 72)
    assert size == pytest.approx((width, height), abs=1e-3)
    fonts = [font.get_object()["/BaseFont"] for font in sheet["/Resources"]["/Font"].values()]
    assert fonts
    assert all("STIX" in font for font in fonts)


@pytest.mark.parametrize("policy", ["DIP", "DIP-CA"])
def test_axe_finds_nothing(policy: str, visit_in: Visit) -> None:
    page = visit_in.open(PATH, source=SOURCE, policy=policy, density="0.6")
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found] == []
