"""A sweep in the browser from start to end, with the real worker on a tiny model: reload, cancel, resume."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from backend.experiments import client
from backend.experiments.runs import RunFolder
from backend.home import Home
from docs.screenshots import running_app, settle
from tests.browser.conftest import Visit, visit_app
from tests.waiting import of_kind, until

pytestmark = pytest.mark.browser
PATIENCE = 120_000
SWEEP = """
name: live
model: {model}
evaluation: {{text: prose, tokens: {tokens}, window: 16}}
policies:
  - method: dip
    density: [{densities}]
"""


@pytest.fixture
def live(browser: Browser, tmp_path: Path) -> Iterator[Visit]:
    """The app on a home of its own, whose worker is ended afterwards, by its own pid."""
    home = Home.resolve(tmp_path / "home")
    with running_app(home.root) as base:
        yield from visit_app(base, browser, "light")
    pid = client.worker_status(home).pid
    if pid is not None:
        os.kill(pid, signal.SIGTERM)


def start(visit: Visit, text: str) -> Page:
    page = write(visit, text)
    page.get_by_role("button", name="Start the sweep").click()
    return page


def write(visit: Visit, text: str) -> Page:
    """Write a sweep file into the form, which is folded while there are runs (the seed's)."""
    page = visit.open("runs")
    page.get_by_text("New sweep").click()
    page.get_by_role("tab", name="From a file").click()
    area = page.get_by_label("or its text")
    area.fill(text)
    area.press("Control+Enter")
    return page


def shown(page: Page, text: str) -> None:
    expect(page.get_by_test_id("stCaptionContainer").get_by_text(text)).to_be_visible(timeout=PATIENCE)


def test_a_sweep_starts_shows_progress_survives_a_reload_and_ends(
    live: Visit, tiny_folder: Path, tmp_path: Path
) -> None:
    home = Home.resolve(tmp_path / "home")
    densities = ", ".join(f"{n / 100:.2f}" for n in range(30, 50))
    page = start(live, SWEEP.format(model=tiny_folder, tokens=800, densities=densities))
    # Held in the middle, so that it shows its progress for as long as the browser takes to look.
    run = RunFolder.open(home, until(lambda: next(iter(home.runs.glob("*/events.jsonl")), None)).parent.name)
    until(lambda: of_kind(run, "progress"))
    client.pause(home, run.id)
    expect(page.get_by_text("windows · paused")).to_be_visible(timeout=PATIENCE)
    page.reload()
    settle(page)
    expect(page.get_by_text("windows · paused")).to_be_visible(timeout=PATIENCE)
    client.resume(home, run.id)
    shown(page, "20 cells run, 0 found.")
    assert live.console == []
    assert live.outside() == []


def test_a_sweep_is_cancelled_and_resumed_from_the_page(live: Visit, tiny_folder: Path) -> None:
    densities = ", ".join(f"{n / 100:.2f}" for n in range(20, 90))
    page = start(live, SWEEP.format(model=tiny_folder, tokens=3200, densities=densities))
    expect(page.get_by_text("windows · about")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Cancel").click()
    shown(page, "Cancelled; the cells finished before are kept.")
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("windows · about")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Cancel").click()
    shown(page, "Cancelled; the cells finished before are kept.")


def test_a_wrong_sweep_gets_a_sentence_and_no_button(live: Visit) -> None:
    page = write(live, "name: x\nmodel: m\npolicies: [{method: dib}]")
    expect(page.get_by_text("There is no method called 'dib'; did you mean 'dip'?")).to_be_visible()
    expect(page.get_by_role("button", name="Start the sweep")).to_have_count(0)
