"""How fast the pages answer: reruns in AppTest, and a slider's move to a changed read-out in Chromium.

python -m benchmarks.pages                # with 100,000 made-up measurements in the store
python -m benchmarks.pages --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from backend.home import REPOSITORY, Home
from backend.results import Store
from backend.sparsity import Policy, make_policy
from tests.figures.figures_samples import STEEPNESS, cell, write_run

SHARES = [round(0.05 * step, 2) for step in range(2, 20)]
MEASUREMENTS = 100_000
METRICS = 8
TARGETS = {"rerun_ms_median": 100.0, "slider_ms_median": 400.0}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=30, help="reruns and slider moves that are timed")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home.resolve(Path(folder) / "home")
        stored = fill(home)
        os.environ["SPARSITY_LENS_HOME"] = str(home.root)
        found: dict[str, float] = {"measurements": stored}
        for page in ("home", "trade_offs", "runs", "methods"):
            times = reruns(page, asked.repeats)
            found |= {f"{page}_rerun_ms_median": statistics.median(times), f"{page}_rerun_ms_p90": p90(times)}
        found["rerun_ms_median"] = max(
            found[f"{page}_rerun_ms_median"] for page in ("home", "trade_offs", "runs")
        )
        moves = slider_moves(home, asked.repeats)
        found |= {"slider_ms_median": statistics.median(moves), "slider_ms_p90": p90(moves)}
        found["load_average"] = os.getloadavg()[0]
    if asked.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        target = f"   (target: at most {TARGETS[name]:g})" if name in TARGETS else ""
        print(f"{name:32} {value:10,.1f}{target}")


def fill(home: Home) -> int:
    """Write runs with at least 100,000 measurements: ten models; return how many are stored."""
    made = list(policies())
    evaluations = -(-MEASUREMENTS // (METRICS * len(made)))
    for number in range(evaluations):
        model, text = f"test-model-{number % 10}", f"test-text-{number // 10}"
        cells = [cell(policy, model, text) for policy in made]
        write_run(home, cells, f"20260101-000000-test-data-{number:04d}")
    with Store.open(home) as store:
        store.ingest()
        return int(store.rows("SELECT count(*) FROM measurements")[0][0])


def policies() -> Iterator[Policy]:
    """Give dense, and every method at eighteen settings."""
    yield make_policy("dense", {})
    for name in STEEPNESS:
        for share in SHARES:
            yield make_policy(name, {"density" if name == "dip" else "keep": share})


def reruns(name: str, repeats: int) -> list[float]:
    """Return the milliseconds of whole reruns of a page in AppTest; the slider moves where there is one."""
    import streamlit as st
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=60).run()
    if name != "home":
        page.switch_page(f"pages/{name}.py").run()
    times = []
    for repeat in range(repeats + 2):
        if name == "trade_offs":
            page.slider(key="density").set_value(round(0.4 + 0.01 * repeat, 2))
        started = time.perf_counter()
        page.run()
        times.append(1000 * (time.perf_counter() - started))
        assert not page.exception
    st.cache_resource.clear()  # closes the store
    return times[2:]


def slider_moves(home: Home, repeats: int) -> list[float]:
    """Return the milliseconds from a key press on the density slider to the changed read-out."""
    from playwright.sync_api import sync_playwright

    from docs.screenshots import CHROMIUM, FLAGS, running_app, settle

    times = []
    with running_app(home.root) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.goto(f"{base}/trade_offs?density=0.4")
        settle(page)
        slider = page.locator(".st-key-density input[type=range]")
        slider.focus()
        for _ in range(repeats + 2):
            # A change of the drawn read-out, seen from inside the page: polling from outside would add to it.
            page.evaluate(_WATCH)
            slider.press("ArrowRight")
            times.append(float(page.evaluate("window.moved")))
            page.wait_for_timeout(150)
        browser.close()
    return times[2:]


def p90(times: list[float]) -> float:
    """Return the 90th percentile."""
    return statistics.quantiles(times, n=10)[-1]


_WATCH = """() => {
  const text = () => [...document.querySelectorAll('.st-key-at_cost .xtick, .st-key-at_cost .point')]
      .map(e => e.textContent + e.getAttribute('transform')).join();
  const before = text();
  window.moved = new Promise(done => {
    document.addEventListener('keydown', () => {
      const start = performance.now();
      const changed = () => text() && text() !== before;
      const look = () => changed() ? done(performance.now() - start) : requestAnimationFrame(look);
      look();
    }, {once: true, capture: true});
  });
}"""


if __name__ == "__main__":
    main()
