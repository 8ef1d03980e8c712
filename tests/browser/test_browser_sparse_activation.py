from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from docs.screenshots import settle
from tests.browser.conftest import Visit
from tests.figures.activation_samples import MODEL

pytestmark = pytest.mark.browser
PATH = "sparse_activation"
LEGEND = ".st-key-curves .legend"


def test_the_address_is_the_figure(visit: Visit) -> None:
    page = visit.open(PATH, model=MODEL, protocol="C label-free")
    legend = page.locator(LEGEND).first
    expect(legend).to_contain_text("DIP")
    expect(legend).not_to_contain_text("label:")
    page.get_by_text("A forced", exact=True).click()
    expect(page.get_by_role("heading", name="What the label gives")).to_be_visible()
    expect(legend).to_contain_text("label: second choice")
    expect(page).not_to_have_url(re.compile("protocol="))
    page.get_by_text("Overlap of the kept", exact=True).click()
    expect(page).to_have_url(re.compile("alike=Overlap"))
    page.goto(page.url)
    settle(page)
    expect(page.get_by_role("radio", name="Overlap of the kept")).to_be_checked()
    assert visit.console == []
    assert visit.outside() == []


@pytest.mark.parametrize("protocol", ["A forced", "C label-free"])
def test_axe_finds_nothing(protocol: str, visit_in: Visit) -> None:
    visit_in.page.set_viewport_size({"width": 1280, "height": 3200})
    page = visit_in.open(PATH, model=MODEL, protocol=protocol)
    found = Axe().run(page).response["violations"]
    assert [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in found] == []


def test_nothing_is_wider_than_a_phone(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = visit.open(PATH, model=MODEL)
    main = "document.querySelector('[data-testid=stMain]')"
    assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")
