from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from backend.experiments.routing_records import import_trace
from backend.home import Home
from docs.screenshots import CHROMIUM, FLAGS, running_app, settle
from tests.figures.activation_samples import write_activation
from tests.figures.figures_samples import MODEL, TEXT, WINDOW, WINDOWS, write_latencies, write_results
from tests.figures.memory_samples import write_memory
from tests.figures.moe_samples import trace_text, write_moe

EVALUATION = f"{MODEL} · {TEXT} · {WINDOWS} × {WINDOW} tokens"
"""The made-up results, whatever else the store holds (the seed)."""


@dataclass
class Visit:
    """A page in the browser, and what went wrong or out while it was open."""

    page: Page
    base: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, path: str, **address: str) -> Page:
        """Open a page of the app and wait until it is drawn."""
        self.page.goto(f"{self.base}/{path}{'?' if address else ''}{urlencode(address)}")
        settle(self.page)
        return self.page

    def outside(self) -> list[str]:
        """Return the requests that left this machine."""
        return [url for url in self.requests if urlsplit(url).hostname not in ("127.0.0.1", None)]


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on made-up results; gives its address."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}; set CHROMIUM")
    home = write_memory(write_results(Home.resolve(tmp_path_factory.mktemp("browser") / "home")))
    write_latencies(home)
    write_activation(home)
    write_moe(home)
    import_trace(home, "device.csv", trace_text().encode())
    with running_app(home.root) as base:
        yield base


@pytest.fixture(scope="session")
def browser(app: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def visit(app: str, browser: Browser) -> Iterator[Visit]:
    yield from visit_app(app, browser, "light")


@pytest.fixture
def visit_in(app: str, browser: Browser, scheme: str) -> Iterator[Visit]:
    """A visit in the light and in the dark theme."""
    yield from visit_app(app, browser, scheme)


def visit_app(app: str, browser: Browser, scheme: str) -> Iterator[Visit]:
    """Open a page on an app that runs, in the light or the dark theme."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 1000}, color_scheme="dark" if scheme == "dark" else "light"
    )
    made = Visit(context.new_page(), app)
    made.page.on("console", lambda said: made.console.append(said.text) if _is_error(said) else None)
    made.page.on("pageerror", lambda error: made.console.append(str(error)))
    made.page.on("request", lambda request: made.requests.append(request.url))
    yield made
    context.close()


def _is_error(said: ConsoleMessage) -> bool:
    """Tell whether the console says an error; Streamlit's search for its own base path makes some."""
    return said.type == "error" and "/_stcore/" not in said.location["url"]
