"""How fast the page Generations answers: first token with a warm worker, a strip of 512 tokens coloured anew.

python -m benchmarks.generations --home data/home

The first is from the click's ``submit`` to the token in the store, through the queue, the worker and the
run folder; the second from a key that chooses another "Colour by" in a headless Chromium to the last token's
new colour, and to the frame that shows it.
Chromium and the app run on the same machine.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from playwright.sync_api import Page, sync_playwright

from backend.experiments import client
from backend.experiments.runs import RunFolder
from backend.generations import GenerationRequest
from backend.home import Home
from backend.results import Store
from docs.screenshots import CHROMIUM, FLAGS, running_app, settle

PROMPT = "Tell me how a lighthouse works."
LONG_PROMPT = "The history of the sea begins with"
"""One that the model goes on from without an end, greedily."""
_STRIPS = """
[...document.querySelectorAll("[class*=st-key-generation_side_] *")]
  .map((node) => node.shadowRoot?.querySelector(".strip")).filter(Boolean)
"""
_WATCH = f"""
() => {{
  const watched = window.watched = {{}};
  addEventListener("keydown", () => {{ watched.begun = performance.now(); watched.ended = 0; }}, true);
  const strips = {_STRIPS};
  for (const strip of strips)
    new MutationObserver(() => {{
      watched.set = performance.now();
      requestAnimationFrame(() => setTimeout(() => {{ watched.ended = performance.now(); }}));
    }}).observe(strip, {{ attributes: true, subtree: true, attributeFilter: ["style"] }});
  return strips.map((strip) => strip.children.length);
}}
"""
"""In the browser, where no question of ours slows it: from the key to the colours, and until their frame is
painted (a task after an animation frame begins when that frame is)."""


def ask(home: Home, tokens: int, seed: int, prompt: str = PROMPT) -> str:
    """Submit a generation of dense and DIP; return its run."""
    request = GenerationRequest.parse(
        {
            "prompts": (prompt,), "policies": ({"method": "dip", "density": 0.5},), "max_tokens": tokens,
            "seed": seed, "style": "raw", "forced": False,
        },
        "benchmark",
    )  # fmt: skip
    return client.submit(home, request, "generation")


def wait_for(folder: RunFolder, kind: str) -> dict[str, Any]:
    """Return a run's first event of a kind, as soon as it is there."""
    while True:
        found = next((event for event in folder.events() if event["kind"] == kind), None)
        if found is not None:
            return found
        time.sleep(0.005)


def first_token_seconds(home: Home, store: Store, repeats: int) -> list[float]:
    """Return the seconds from submitting to the first token in the store, each with a warm, idle worker."""
    found = []
    for seed in range(repeats):
        while client.worker_status(home).state != "idle":
            time.sleep(0.05)
        begun = time.perf_counter()
        run = ask(home, 4, seed)
        wait_for(RunFolder.open(home, run), "generation_tokens")
        store.ingest()
        found.append(time.perf_counter() - begun)
        wait_for(RunFolder.open(home, run), "run_finished")
    return found


def recolour_seconds(page: Page, base: str, run: str, tokens: int) -> list[tuple[float, float]]:
    """Return the seconds from choosing a colour to its being set, and to the frame with it, for each."""
    page.goto(f"{base}/generations?{urlencode({'generation': run})}")
    settle(page)
    page.wait_for_function(f"{_STRIPS}.every((strip) => strip.children.length >= {tokens})")
    page.evaluate(_WATCH)
    control = page.get_by_label("Colour by")
    control.focus()
    found = []
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowUp", "ArrowUp"):
        page.keyboard.press(key)
        page.wait_for_timeout(1500)
        begun, coloured, shown = page.evaluate("[watched.begun, watched.set, watched.ended]")
        found.append(((coloured - begun) / 1e3, (shown - begun) / 1e3))
    return found


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    asked = parser.parse_args()
    home = Home.resolve(asked.home)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    wait_for(RunFolder.open(home, ask(home, 4, 99)), "run_finished")  # the worker starts and gets warm
    with Store.open(home) as store:
        store.ingest()
        times = first_token_seconds(home, store, asked.repeats)
        print(f"first token: median {statistics.median(times):.2f} s, worst {max(times):.2f} s")
        long = ask(home, asked.tokens, 1, prompt=LONG_PROMPT)
        wait_for(RunFolder.open(home, long), "run_finished")
        store.ingest()
        count = store.rows("SELECT min(tokens) FROM generation_ends WHERE run_id = $run", {"run": long})[0][0]
    with running_app(home.root) as base, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        both = recolour_seconds(page, base, long, int(count)) + recolour_seconds(page, base, long, int(count))
        browser.close()
    for what, taken in zip(("colours set", "frame drawn"), zip(*both, strict=True), strict=True):
        print(f"two strips of {count} tokens coloured anew, {what}: median "
              f"{1e3 * statistics.median(taken):.0f} ms, worst {1e3 * max(taken):.0f} ms")  # fmt: skip
    if (pid := client.worker_status(home).pid) is not None:
        os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
