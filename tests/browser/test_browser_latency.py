from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from docs.screenshots import CHART_MILLISECONDS, settle
from tests.browser.conftest import EVALUATION, Visit

pytestmark = pytest.mark.browser
LIMIT = re.compile(r"Limit at [\d.]+ GB/s,\s*measured")


def test_a_link_opens_the_axis_of_measured_speed(visit_in: Visit) -> None:
    page = visit_in.open("trade_offs", evaluation=EVALUATION, cost="Measured speed", int8="true", speed="80")
    figure = page.locator(".st-key-trade_off")
    expect(figure.get_by_text("tokens/s, higher is better")).to_be_visible(timeout=CHART_MILLISECONDS)
    expect(figure.get_by_text("DIP, int8", exact=True)).to_be_visible()
    expect(page.get_by_role("slider").first).to_have_value("80")
    expect(page.get_by_role("button", name="Measure its latency now")).to_be_visible()
    assert _violations(page) == []
    assert visit_in.console == []
    assert visit_in.outside() == []


def test_the_roofline_stands_on_dip_and_memory(visit_in: Visit) -> None:
    page = visit_in.open("dip_memory")
    expect(page.locator(".st-key-roofline .main-svg").first).to_be_visible(timeout=CHART_MILLISECONDS)
    expect(page.locator(".st-key-roofline").get_by_text(LIMIT)).to_be_visible()
    expect(page.locator(".st-key-token_parts").get_by_text("Attention").first).to_be_visible()
    assert _violations(page) == []
    assert visit_in.console == []


@pytest.mark.parametrize(
    "path", ["trade_offs?cost=Measured+speed", "dip_memory", "runs?kind=Latency+on+this+machine"]
)
def test_nothing_is_wider_than_a_telephone(path: str, visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.page.goto(f"{visit.base}/{path}")
    settle(visit.page)
    main = "document.querySelector('[data-testid=stMain]')"
    assert visit.page.evaluate(f"{main}.scrollWidth - {main}.clientWidth") <= 0


def _violations(page: Page) -> list[tuple[str, list[str]]]:
    found = Axe().run(page).response["violations"]
    return [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found]
