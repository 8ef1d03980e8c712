from __future__ import annotations

import io
import re
import zipfile

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from backend.figures.paper.bundle import bundle_files
from backend.figures.paper.figure import PaperFigure
from docs.screenshots import CHART_MILLISECONDS, settle
from tests.browser.conftest import EVALUATION, Visit

pytestmark = pytest.mark.browser


def test_a_figure_goes_from_trade_offs_into_a_submission(visit: Visit) -> None:
    page = to_paper(visit)
    first = page.url
    assert width(page) == pytest.approx(5.5 * 96, abs=1)
    page.get_by_role("combobox", name="Venue").click()
    page.get_by_role("option", name="AAAI").click()
    expect(page.get_by_text("6.975 × ")).to_be_visible(timeout=CHART_MILLISECONDS)
    settle(page)
    assert page.url != first
    assert width(page) == pytest.approx(6.975 * 96, abs=1)
    sheet = pypdf.PdfReader(io.BytesIO(download(page, "PDF"))).pages[0]
    assert float(sheet.mediabox.width) / 72 == pytest.approx(6.975, abs=1e-4)
    figure = PaperFigure.from_json(download(page, "figure.json"))
    assert page.url.endswith(figure.id)
    with zipfile.ZipFile(io.BytesIO(download(page, "Bundle (zip)"))) as archive:
        assert sorted(archive.namelist()) == sorted(bundle_files(figure))
    page.goto(page.url)
    settle(page)
    assert width(page) == pytest.approx(6.975 * 96, abs=1)
    expect(page.get_by_role("combobox", name="Venue")).to_have_value("AAAI")
    assert visit.console == []
    assert visit.outside() == []


def test_axe_finds_nothing_with_everything_open(visit_in: Visit) -> None:
    visit_in.page.set_viewport_size({"width": 1280, "height": 3200})
    page = to_paper(visit_in)
    for heading in ("Axes and legend", "Words and sizes", "Compose a panel from stored results"):
        page.get_by_text(heading, exact=True).click()
    page.get_by_role("button", name="Add as a panel").click()
    expect(page.get_by_role("button", name="Remove").first).to_be_visible(timeout=CHART_MILLISECONDS)
    settle(page)
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found] == []


def test_the_preview_keeps_its_size_on_a_phone(visit: Visit) -> None:
    page = to_paper(visit)
    page.set_viewport_size({"width": 390, "height": 844})
    settle(page)
    assert width(page) == pytest.approx(5.5 * 96, abs=1)
    main = "document.querySelector('[data-testid=stMain]')"
    assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")


def to_paper(visit: Visit) -> Page:
    page = visit.open("trade_offs", evaluation=EVALUATION)
    page.locator(".st-key-trade_off_paper button").first.click()
    page.wait_for_url(re.compile(r"/paper\?figure=[0-9a-f]{16}$"), timeout=CHART_MILLISECONDS)
    expect(page.get_by_alt_text(re.compile("^Preview"))).to_be_visible(timeout=CHART_MILLISECONDS)
    settle(page)
    return page


def width(page: Page) -> float:
    box = page.get_by_alt_text(re.compile("^Preview")).bounding_box()
    assert box is not None
    return box["width"]


def download(page: Page, label: str) -> bytes:
    with page.expect_download(timeout=CHART_MILLISECONDS) as found:
        page.get_by_role("button", name=label, exact=True).click()
    return found.value.path().read_bytes()
