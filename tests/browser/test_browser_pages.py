from __future__ import annotations

import io
import re
from urllib.parse import parse_qs, urlsplit

import pypdf
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from docs.screenshots import CHART_MILLISECONDS, settle
from tests.browser.conftest import EVALUATION, Visit

pytestmark = pytest.mark.browser
PAGES = {
    "": "Sparsity Lens",
    "trade_offs": "Trade-offs",
    "sparse_activation": "Sparse activation",
    "dip_memory": "DIP and memory",
    "mixture_of_experts": "Mixture of experts",
    "generations": "Generations",
    "runs": "Runs",
    "paper": "Paper",
    "methods": "Methods",
}
VIEWS = [*PAGES, "trade_offs?of=Expert+routing", "generations?token=1.4"]


@pytest.mark.parametrize("path", PAGES)
def test_each_page_opens_from_its_address(path: str, visit: Visit) -> None:
    page = visit.open(path)
    expect(page.get_by_role("heading", level=1)).to_have_text(PAGES[path])
    for title in ("Home", "Trade-offs", "Runs", "Methods"):
        expect(page.get_by_test_id("stSidebarNavLink").get_by_text(title, exact=True)).to_be_visible()
    expect(page).to_have_title(re.compile("Sparsity Lens|" + PAGES[path]))
    assert visit.console == []
    assert visit.outside() == []


@pytest.mark.parametrize("path", VIEWS)
def test_axe_finds_nothing(path: str, visit_in: Visit) -> None:
    visit_in.page.set_viewport_size({"width": 1280, "height": 3200})  # it sees only what is on the screen
    page = visit_in.open(path)
    found = Axe().run(page).response["violations"]
    said = [
        f"{v['id']} ({v['impact']}): {node['html'][:200]} {[c['message'] for c in node['any']][:1]}"
        for v in found
        for node in v["nodes"][:3]
    ]
    assert said == []


@pytest.mark.parametrize("path", VIEWS)
def test_nothing_is_wider_than_a_phone(path: str, visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    page = visit.open(path)
    main = "document.querySelector('[data-testid=stMain]')"
    assert page.evaluate(f"{main}.scrollWidth <= {main}.clientWidth")


def test_a_slider_changes_the_address_and_the_read_out(visit: Visit) -> None:
    page = visit.open("trade_offs", evaluation=EVALUATION)
    before = _read_out(page)
    _press(page, "MLP density (share of MLP weights read)", "ArrowRight", 10)
    expect(page).to_have_url(re.compile(r"[?&]density=0\.8\b"))
    page.wait_for_function(
        "([key, text]) => document.querySelector(key)?.innerText !== text", arg=[_AT_COST, before]
    )
    assert "interpolated" not in before
    address = page.url
    page.goto(address)
    settle(page)
    assert parse_qs(urlsplit(page.url).query)["density"] == ["0.8"]
    expect(page.get_by_role("slider").first).to_have_value("0.8")
    assert visit.console == []


def test_a_slider_leaves_the_big_figure_alone(visit: Visit) -> None:
    page = visit.open("trade_offs", evaluation=EVALUATION)
    page.evaluate("document.querySelector('.st-key-trade_off .main-svg').dataset.mark = 'same'")
    _press(page, "MLP density (share of MLP weights read)", "ArrowRight", 5)
    expect(page).to_have_url(re.compile("density="))
    page.wait_for_timeout(800)
    assert page.evaluate("document.querySelector('.st-key-trade_off .main-svg').dataset.mark") == "same"


def test_a_click_on_a_point_shows_its_card(visit: Visit) -> None:
    page = visit.open("trade_offs", evaluation=EVALUATION)
    point = page.locator(".st-key-trade_off .scatterlayer .trace").nth(2).locator(".points path").last
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    card = page.get_by_role("region", name="Everything measured")
    expect(card).to_be_visible(timeout=CHART_MILLISECONDS)
    expect(page).to_have_url(re.compile("points="))
    assert visit.console == []


@pytest.mark.parametrize(
    ("label", "start"), [("PDF", b"%PDF"), ("SVG", b"<?xml"), ("PNG, 300 dpi", b"\x89PNG")]
)
def test_a_figure_can_be_taken_into_a_paper(label: str, start: bytes, visit: Visit) -> None:
    content = _download(visit, label)
    assert content.startswith(start)
    if label == "PDF":
        page = pypdf.PdfReader(io.BytesIO(content)).pages[0]
        assert float(page.mediabox.width) == 5.5 * 72


def test_the_width_on_paper_is_that_of_the_venue(visit: Visit) -> None:
    page = visit.open("trade_offs", evaluation=EVALUATION)
    page.locator(".st-key-trade_off_export button").first.click()
    page.get_by_role("combobox", name="Width on paper").click()
    page.get_by_role("option", name="ICML, CVPR column (3.25 in)").click()
    expect(page.get_by_text("3.25 × 2.61 inches")).to_be_visible()
    with page.expect_download(timeout=CHART_MILLISECONDS) as download:
        page.get_by_role("button", name="PDF", exact=True).click()
    box = pypdf.PdfReader(io.BytesIO(download.value.path().read_bytes())).pages[0].mediabox
    assert float(box.width) == 3.25 * 72


def test_the_data_of_a_figure_can_be_taken_along(visit: Visit) -> None:
    lines = _download(visit, "Data as CSV").decode().splitlines()
    assert lines[0].startswith("series,")
    assert any(line.startswith("DIP,") for line in lines)


def test_the_interactive_html_works_alone(visit: Visit) -> None:
    content = _download(visit, "Interactive HTML").decode()
    page = visit.page.context.new_page()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.set_content(content)
    page.wait_for_selector(".main-svg", timeout=CHART_MILLISECONDS)
    assert [url for url in requests if url.startswith("http")] == []
    assert page.locator("a.modebar-btn[data-title*=hare]").count() == 0


def test_a_bad_address_is_a_sentence(visit: Visit) -> None:
    page = visit.open("trade_offs", evaluation=EVALUATION, density="7", methods="DIPP")
    said = page.get_by_test_id("stAlert")
    expect(said).to_have_count(2)
    expect(said.nth(0)).to_contain_text("did you mean 'DIP'?")
    expect(said.nth(1)).to_contain_text("must be a number from 0.05 to 1")
    assert visit.console == []


def test_the_first_sweep_is_one_click_away(visit: Visit) -> None:
    page = visit.open("")
    page.get_by_role("button", name="Run a first sweep").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Runs")
    expect(page.get_by_role("button", name="Start the sweep")).to_be_visible()
    expect(page.get_by_role("textbox", name="Name")).to_have_value("first-sweep")


_AT_COST = ".st-key-at_cost"


def _read_out(page: Page) -> str:
    """Return what the small figure beside the read-out says (the table itself is drawn on a canvas)."""
    text = page.evaluate(f"document.querySelector('{_AT_COST}').innerText")
    return str(text)


def _press(page: Page, label: str, key: str, times: int) -> None:
    slider = page.get_by_role("slider", name=label)
    slider.focus()
    for _ in range(times):
        slider.press(key)


def _download(visit: Visit, label: str) -> bytes:
    page = visit.open("trade_offs", evaluation=EVALUATION)
    page.locator(".st-key-trade_off_export button").first.click()
    with page.expect_download(timeout=CHART_MILLISECONDS) as download:
        page.get_by_role("button", name=label, exact=True).click()
    return download.value.path().read_bytes()
