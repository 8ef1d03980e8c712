"""How many events a second the store takes from a run folder: ``python -m benchmarks.ingest``."""

from __future__ import annotations

import json
import random
import tempfile
import time

from backend.home import Home
from backend.results import Store

CELLS = 5_000
WINDOWS = 16
METRICS = (
    ("perplexity", "ppl"),
    ("nll", "nats"),
    ("delta_nll", "nats"),
    ("kl", "nats"),
    ("agreement", "share"),
    ("mlp_density", "share"),
    ("model_density", "share"),
    ("bytes_per_token", "B"),
)


def write_run(home: Home) -> int:
    """Write one run of ``CELLS`` cells with a progress event a window; return the number of events."""
    folder = home.runs / "benchmark"
    folder.mkdir()
    asked = {"run": "benchmark", "name": "benchmark", "kind": "sweep", "created_at": "2026-01-01T00:00:00Z"}
    (folder / "run.json").write_text(json.dumps(asked))
    lines = [json.dumps({"at": _at(0), "kind": "run_started", "provenance": {"process": {}}})]
    for number in range(CELLS):
        cell = f"{number:016x}"
        lines.append(json.dumps({"at": _at(number), "kind": "cell_started", "cell": cell}))
        for window in range(WINDOWS):
            done = {"done": number * WINDOWS + window, "total": CELLS * WINDOWS, "seconds_left": 12.5}
            lines.append(json.dumps({"at": _at(number), "kind": "progress", "cell": cell, **done}))
        lines.append(json.dumps(_finished(number, cell)))
    lines.append(json.dumps({"at": _at(CELLS), "kind": "run_finished", "status": "done", "message": ""}))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    return len(lines)


def _finished(number: int, cell: str) -> dict[str, object]:
    settings = {"keep": (number % 100) / 100, "layers": number // 100}
    measurements = [
        {"metric": m, "value": random.random(), "stderr": 0.01, "n": 16_368, "unit": u, "how": "measured"}
        for m, u in METRICS
    ]
    return {
        "at": _at(number),
        "kind": "cell_finished",
        "cell": cell,
        "description": {
            "model": "smollm2-135m",
            "model_sha256": "b1" * 32,
            "policy": ("dip", "glu", "gate", "up")[number % 4],
            "policy_version": 1,
            "settings": settings,
            "text": "wikitext2",
            "text_sha256": "17" * 32,
            "evaluation": {"version": 1, "tokens": 16_384, "window": 1_024, "dtype": "float32"},
        },
        "measurements": measurements,
        "windows": {m: [random.random() for _ in range(WINDOWS)] for m in ("nll", "delta_nll", "kl")},
        "seconds": 3.2,
    }


def _at(number: int) -> str:
    return f"2026-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000+00:00"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home.resolve(folder)
        events = write_run(home)
        size = (home.runs / "benchmark" / "events.jsonl").stat().st_size
        with Store.open(home) as store:
            start = time.perf_counter()
            taken = store.ingest()
            seconds = time.perf_counter() - start
        assert taken == events, f"{taken} of {events} events taken"
    print(f"{events} events ({size / 2**20:.1f} MiB) in {seconds:.2f} s: {events / seconds:,.0f} events/s")


if __name__ == "__main__":
    main()
