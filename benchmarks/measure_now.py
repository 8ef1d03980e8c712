"""How long "Measure this point now" takes with a warm worker: 512 tokens, submitted as the page does.

    python -m benchmarks.measure_now [--points 5]

From the submission to the event that carries the result; each point is a new density, so none is found.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from pathlib import Path

from backend.experiments import client
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import Sweep
from backend.home import Home


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--points", type=int, default=5)
    arguments = parser.parse_args()
    home = Home.resolve(arguments.home)
    before = client.worker_status(home).state
    offset = time.time() % 1e3 / 1e5
    seconds = [point(home, 0.4 + offset + number / 20) for number in range(arguments.points + 1)]
    print(f"first point, worker {before}: {seconds[0]:.2f} s")
    later = sorted(seconds[1:])
    median = statistics.median(later)
    print(f"warm worker, {len(later)} points: median {median:.2f} s, worst {later[-1]:.2f} s (aim ≤ 5 s)")
    if before == "absent" and (pid := client.worker_status(home).pid):
        os.kill(pid, signal.SIGTERM)


def point(home: Home, density: float) -> float:
    sweep = Sweep.parse(
        {
            "name": "point",
            "model": "smollm2-135m",
            "evaluation": {"text": "prose", "tokens": 512, "window": 256},
            "policies": [{"method": "dip", "density": round(density, 6)}],
        },
        "benchmark",
    )
    start = time.perf_counter()
    folder = RunFolder.open(home, client.submit(home, sweep, "point"))
    while not folder.finished():
        time.sleep(0.02)
    taken = time.perf_counter() - start
    assert any(event["kind"] == "cell_finished" for event in folder.events()), folder.failure()
    return taken


if __name__ == "__main__":
    main()
