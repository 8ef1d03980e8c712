"""Generations in the browser, the real worker on a tiny model: live, reload, stop, tabs, hostile text."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from backend.experiments import client
from backend.experiments.runs import RunFolder
from backend.generations import GenerationRequest
from backend.home import Home
from docs.screenshots import running_app, settle
from tests.browser.conftest import Visit, visit_app
from tests.models_tiny import tiny_model
from tests.waiting import of_kind, until

pytestmark = pytest.mark.browser
PATIENCE = 120_000
EVIL = '<img src=x onerror="window.hurt=1"><script>window.hurt=2</script>\x1b[31m :red[x] $x$ **b** é'


@pytest.fixture(scope="session")
def long_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with room for long texts."""
    folder = tmp_path_factory.mktemp("models") / "tiny-long"
    tiny_model("llama", folder, max_position_embeddings=4096)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home")


@pytest.fixture
def live(browser: Browser, home: Home) -> Iterator[Visit]:
    """The app on a home of its own, whose worker is ended afterwards, by its own pid."""
    with running_app(home.root) as base:
        yield from visit_app(base, browser, "light")
    pid = client.worker_status(home).pid
    if pid is not None:
        os.kill(pid, signal.SIGTERM)


def submitted(home: Home, folder: Path, prompt: str, tokens: int) -> str:
    """Ask for a greedy text: the tiny model goes round in circles and never ends by itself."""
    request = GenerationRequest.parse(
        {
            "model": str(folder), "prompts": (prompt,), "style": "raw", "max_tokens": tokens,
            "policies": ({"method": "dip", "density": 0.5},),
        },
        "test",
    )  # fmt: skip
    return client.submit(home, request, "generation")


def written(page: Page) -> int:
    """Return how many tokens the dense side says it has."""
    said = page.locator(".st-key-generation_side_0").get_by_text(re.compile(r"^[\d,]+ tokens?")).inner_text()
    return int(said.split()[0].replace(",", ""))


def badge(page: Page, status: str) -> None:
    expect(page.locator(".stMarkdownBadge").get_by_text(status)).to_be_visible(timeout=PATIENCE)


def two_prompts(home: Home, folder: Path) -> str:
    """Write a list of two texts; return its run."""
    said = {"model": str(folder), "prompts": ("abc", "def"), "style": "raw", "max_tokens": 8}
    run = client.submit(home, GenerationRequest.parse(said, "test"), "prompts")
    ended(home, run)
    return run


def ended(home: Home, run: str) -> None:
    until(lambda: of_kind(RunFolder.open(home, run), "run_finished"))


def held(home: Home, folder: Path, prompt: str, tokens: int) -> str:
    """Ask for a text and hold it in the middle, for as long as the browser takes to look."""
    run = submitted(home, folder, prompt, tokens)
    until(lambda: of_kind(RunFolder.open(home, run), "generation_tokens"))
    client.pause(home, run)
    until(lambda: of_kind(RunFolder.open(home, run), "run_paused"))
    return run


def test_two_strips_grow_survive_a_reload_and_are_stopped(live: Visit, home: Home, long_folder: Path) -> None:
    run = held(home, long_folder, "abc", 2_000)
    page = live.open("generations", generation=run)
    badge(page, "paused")
    expect(page.get_by_role("listbox")).to_have_count(2, timeout=PATIENCE)
    before = written(page)
    page.reload()
    settle(page)
    expect(page.get_by_role("listbox")).to_have_count(2, timeout=PATIENCE)
    assert written(page) >= before > 0
    client.resume(home, run)
    until(lambda: written(page) > before)
    client.pause(home, run)
    page.get_by_role("button", name="Stop").click()
    badge(page, "cancelled")
    expect(page.get_by_text("Stopped; the text so far is kept.")).to_be_visible()
    assert written(page) > before
    assert live.console == []
    assert live.outside() == []


def test_three_tabs_write_at_once_and_none_mixes_or_blocks(
    live: Visit, home: Home, long_folder: Path
) -> None:
    runs = [held(home, long_folder, "tab A", 100)]
    runs += [submitted(home, long_folder, f"tab {name}", 100) for name in "BC"]
    tabs = [live.page, *(live.page.context.new_page() for _ in range(2))]
    for tab, run in zip(tabs, runs, strict=True):
        tab.goto(f"{live.base}/generations?generation={run}")
    badge(tabs[0], "paused")
    expect(tabs[2].get_by_text(f"In the queue, 1 before it. The worker runs {runs[0]}.")).to_be_visible(
        timeout=PATIENCE
    )
    client.resume(home, runs[0])
    for tab, name in zip(tabs, "ABC", strict=True):
        badge(tab, "done")
        expect(tab.get_by_test_id("stText").get_by_text(f"tab {name}", exact=True)).to_be_visible()
        assert written(tab) == 100
    texts = [tab.get_by_role("listbox").first.inner_text() for tab in tabs]
    assert len(set(texts)) == 3


def test_a_prompt_full_of_html_is_text_and_a_token_can_be_chosen_by_keyboard(
    live: Visit, home: Home, long_folder: Path
) -> None:
    run = submitted(home, long_folder, EVIL, 24)
    ended(home, run)
    page = live.open("generations", generation=run)
    expect(page.get_by_test_id("stText").get_by_text("<img src=x onerror=").first).to_be_visible()
    assert page.evaluate("window.hurt") is None
    assert page.locator("img[src=x]").count() == 0
    strip = page.get_by_role("listbox").nth(1)
    strip.get_by_role("option").first.focus()
    expect(page.get_by_role("tooltip").get_by_text("KL(dense‖sparse)").first).to_be_visible()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Token 2 of DIP")).to_be_visible()
    expect(strip.get_by_role("option").nth(1)).to_have_attribute("aria-selected", "true")
    expect(page.get_by_test_id("stDataFrame")).to_have_count(2)
    page.set_viewport_size({"width": 1280, "height": 3200})
    settle(page)
    assert [violation["id"] for violation in Axe().run(page).response["violations"]] == []
    with page.expect_download() as download:
        page.get_by_role("button", name="HTML").click()
    content = Path(download.value.path()).read_text()
    assert "<img" not in content
    assert "&lt;img src=x onerror=" in content
    assert live.console == []


NOW = """
(control, name) => {
  const side = [...document.querySelectorAll(".st-key-generation_side_1 *")].find((node) => node.shadowRoot);
  const token = side.shadowRoot.querySelectorAll(".token")[3];
  const looks = () => [token.style.background, control.getRootNode().querySelector("[role=img]").ariaLabel];
  const before = looks();
  control.value = name;
  control.dispatchEvent(new Event("change"));
  return [before, looks()];
}
"""
"""Choose a colour and look at once: no answer of the server can have come."""


def test_a_colour_is_there_at_once_stays_and_stands_in_the_address(
    live: Visit, home: Home, long_folder: Path
) -> None:
    run = submitted(home, long_folder, "abc", 24)
    ended(home, run)
    page = live.open("generations", generation=run)
    control = page.get_by_label("Colour by")
    (density, legend), (rank, other) = control.evaluate(NOW, "Rank under dense, log10")
    assert density != rank
    assert "KL" in legend
    assert "Rank" in other
    page.wait_for_url(re.compile("colour=Rank"))
    settle(page)
    token = page.get_by_role("listbox").nth(1).get_by_role("option").nth(3)
    assert token.evaluate("token => token.style.background") == rank
    expect(page.get_by_role("listbox", name="coloured by Rank under dense")).to_have_count(2)
    control.evaluate(NOW, "MLP density")  # there and back before the server can answer
    control.evaluate(NOW, "Rank under dense, log10")
    page.wait_for_timeout(3_000)  # the server's answers; the address may already say what they will
    page.wait_for_url(re.compile("colour=Rank"))
    page.go_back()
    settle(page)
    expect(control).not_to_have_value("Rank under dense, log10")
    page.go_forward()
    expect(control).to_have_value("Rank under dense, log10")
    control.focus()
    page.keyboard.press("ArrowDown")  # several at once: the server's answers come late and in between
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    settle(page)
    expect(control).to_have_value("MLP density")
    page.wait_for_url(re.compile("colour=MLP"))
    shown = token.evaluate("token => token.style.background")
    page.reload()
    settle(page)
    expect(page.get_by_label("Colour by")).to_have_value("MLP density")
    assert token.evaluate("token => token.style.background") == shown
    assert live.console == []


def test_the_address_follows_the_controls_of_another_text(live: Visit, home: Home, long_folder: Path) -> None:
    single = submitted(home, long_folder, "abc", 8)
    ended(home, single)
    several = two_prompts(home, long_folder)
    page = live.open("generations", generation=single)
    page.get_by_role("combobox", name="Generation").click()
    page.get_by_role("option", name=re.compile("^2 prompts")).click()
    settle(page)
    page.get_by_role("radio", name="Forced on the reference's text").click(force=True)
    page.wait_for_url(re.compile(r"form=Forced.*generation=" + several))


def test_the_address_stays_with_a_new_text_that_waits(live: Visit, home: Home, long_folder: Path) -> None:
    several = two_prompts(home, long_folder)
    held(home, long_folder, "abc", 2_000)
    page = live.open("generations", generation=several)
    page.get_by_role("button", name="Generate", exact=True).click()
    page.wait_for_function(f"!location.search.includes('{several}')")
    badge(page, "queued")
    page.wait_for_timeout(3_000)  # what comes late must not bring the list back
    assert several not in page.url
    page.reload()
    settle(page)
    badge(page, "queued")


def test_a_worker_killed_in_the_middle_leaves_its_text_and_a_sentence(
    live: Visit, home: Home, long_folder: Path
) -> None:
    run = held(home, long_folder, "abc", 2_000)
    pid = client.worker_status(home).pid
    assert pid is not None
    page = live.open("generations", generation=run)
    before = written(page)
    os.kill(pid, signal.SIGKILL)
    expect(page.get_by_text("The worker ended in the middle; the text so far is kept.")).to_be_visible(
        timeout=PATIENCE
    )
    assert written(page) >= before > 0
