"""How long a move of a control takes on "DIP and memory", served: from the change to the last element.

    python -m benchmarks.memory_page [--home data/home] [--moves 12]

Streamlit runs the page as for a browser, without one; the aim is at most 150 ms a slider move. First moves
fill caches (a recording is read, its hulls are made) and are given apart.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from backend.home import REPOSITORY, Home


def main() -> None:
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path)
    parser.add_argument("--moves", type=int, default=12)
    asked = parser.parse_args()
    os.environ["SPARSITY_LENS_HOME"] = str(Home.resolve(asked.home).root)
    page = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=120).run()
    page.switch_page("pages/dip_memory.py")
    print(f"opening the page, caches empty: {1000 * timed(page.run):6.0f} ms")
    for policy in ("DIP", "DIP-CA"):
        page.radio(key="policy").set_value(policy).run()
        for split in ("Uniform", "Better"):
            page.radio(key="split").set_value(split).run()
            for key, values in (("dram", (3.0, 5.0)), ("density", (0.7, 0.9)), ("gamma", (0.2, 0.5))):
                if key == "gamma" and policy == "DIP":
                    continue
                times = [move(page, key, values[i % 2]) for i in range(asked.moves + 2)]
                later = sorted(times[2:])
                median, worst = statistics.median(later), later[-1]
                print(
                    f"{policy:<7} {split:<8} {key:<8} first {times[0]:6.0f} ms   "
                    f"then median {median:5.0f} ms, worst {worst:5.0f} ms"
                )


def move(page: AppTest, key: str, value: float) -> float:
    page.slider(key=key).set_value(value)
    return 1000 * timed(page.run)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
