"""Screenshots of every page: starts the app on a home folder and writes PNGs.

python docs/screenshots.py --home data/home -o docs            # the README's: docs/trade-offs.png, light
python docs/screenshots.py --home data/home -o /tmp/shots --all     # light, dark and narrow, to look at
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

REPOSITORY = Path(__file__).resolve().parent.parent
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--hide-scrollbars",
]  # fmt: skip
PAGES = {
    "home": "",
    "trade-offs": "trade_offs",
    "sparse-activation": "sparse_activation",
    "dip-memory": "dip_memory",
    "mixture-of-experts": "mixture_of_experts",
    "generations": "generations",
    "runs": "runs",
    "paper": "paper",
    "methods": "methods",
}
START_SECONDS = 60
CHART_MILLISECONDS = 40_000


@contextlib.contextmanager
def running_app(home: Path) -> Iterator[str]:
    """Run the app on a home folder and a free port of this machine; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    command += [
        "--server.address",
        "127.0.0.1",
        "--server.headless",
        "true",
        "--server.fileWatcherType",
        "none",
    ]
    environment = os.environ | {"SPARSITY_LENS_HOME": str(home)}
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_until_up(f"http://127.0.0.1:{port}/_stcore/health")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def settle(page: Page) -> None:
    """Wait until a page has been drawn: the script has ended and its charts are there."""
    page.wait_for_selector("[data-testid=stAppViewContainer] h1", timeout=CHART_MILLISECONDS)
    page.wait_for_selector(
        "[data-testid=stApp][data-test-script-state=notRunning]", timeout=CHART_MILLISECONDS
    )
    page.wait_for_function(
        "!document.querySelector('[data-testid=stStatusWidget], [data-testid=stSkeleton]')",
        timeout=CHART_MILLISECONDS,
    )
    page.wait_for_function(
        "[...document.querySelectorAll('.stPlotlyChart')].every(chart => chart.querySelector('.main-svg'))",
        timeout=CHART_MILLISECONDS,
    )
    page.wait_for_timeout(700)


def shoot(
    browser: Browser, address: str, path: Path, *, dark: bool, width: int, height: int, whole: bool
) -> None:
    """Open an address and write its picture.

    Args:
        browser: A running browser.
        address: Which page.
        path: The PNG file.
        dark: Ask for the dark theme.
        width: Pixels of the window.
        height: Pixels of the window.
        whole: The whole page, not only what the window shows.
    """
    page = browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    page.goto(address)
    settle(page)
    if whole:
        # Streamlit scrolls inside the page: make the window as tall as the content.
        content = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        page.set_viewport_size({"width": width, "height": min(9_000, int(content) + 20)})
        page.wait_for_timeout(900)
    page.screenshot(path=path)
    page.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path, required=True, help="home folder with results")
    parser.add_argument(
        "-o", "--output", type=Path, default=REPOSITORY / "docs", help="folder of the pictures"
    )
    parser.add_argument("--all", action="store_true", help="every page: light, dark and narrow, whole")
    parser.add_argument("--page", choices=list(PAGES), help="only this page")
    asked = parser.parse_args()
    asked.output.mkdir(parents=True, exist_ok=True)
    with running_app(asked.home.resolve()) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        first = browser.new_page()  # app.py sets the sidebar's width from the second page on
        first.goto(base)
        settle(first)
        first.close()
        if not asked.all:
            path = asked.output / "trade-offs.png"
            shoot(browser, f"{base}/trade_offs", path, dark=False, width=1280, height=1240, whole=False)
        else:
            for name in [asked.page] if asked.page else PAGES:
                for variant, dark, width in (
                    ("light", False, 1280),
                    ("dark", True, 1280),
                    ("narrow", False, 390),
                ):
                    path = asked.output / f"{name}-{variant}.png"
                    shoot(
                        browser, f"{base}/{PAGES[name]}", path, dark=dark, width=width, height=900, whole=True
                    )
        browser.close()


def _wait_until_up(address: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(address, timeout=2),
        ):
            return
        time.sleep(0.2)
    raise RuntimeError(f"The app did not come up at {address}.")


if __name__ == "__main__":
    main()
