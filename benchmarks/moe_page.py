"""How long a move of the cache slider takes on "Mixture of experts", served, on a large trace.

    python -m benchmarks.moe_page [--moves 12]

48 layers of 128 experts, 8 of them used, as Qwen3-30B-A3B has, and 160 tokens of random routing in
a home that is thrown away: only the work counts here, no number of it is a result. Streamlit runs the page as
for a browser, without one.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from backend.experiments.routing_records import save_routing_record
from backend.home import REPOSITORY, Home
from backend.residency import ExpertTrace, RoutingRecord

LAYERS, EXPERTS, USED, TOKENS = 48, 128, 8, 160


def main() -> None:
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moves", type=int, default=12)
    moves = parser.parse_args().moves
    with tempfile.TemporaryDirectory() as folder:
        home = Home.resolve(Path(folder))
        save_routing_record(home, large(), "trace-1", {"imported": "large.csv", "sha256": "1"}, {})
        os.environ["SPARSITY_LENS_HOME"] = str(home.root)
        page = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=120).run()
        page.switch_page("pages/mixture_of_experts.py")
        print(f"opening the page, caches empty: {1000 * timed(page.run):6.0f} ms")
        page.selectbox(key="routing").set_value("large.csv (imported trace)").run()
        new = [move(page, 20 + i) for i in range(moves)]
        again = [move(page, 20 + i) for i in range(moves)]
        for name, times in (("a size not seen yet", new), ("a size seen before", again)):
            print(f"{name:<20} median {statistics.median(times):5.0f} ms, worst {max(times):5.0f} ms")


def large() -> RoutingRecord:
    rng = np.random.default_rng(0)
    traces = {
        layer: ExpertTrace.from_lists([rng.permutation(EXPERTS)[:USED] for _ in range(TOKENS)], EXPERTS)
        for layer in range(LAYERS)
    }
    return RoutingRecord.of(traces, expert_bytes=3_000_000, with_global=False)


def move(page: AppTest, slots: int) -> float:
    page.slider(key="slots").set_value(slots)
    return 1000 * timed(page.run)


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
