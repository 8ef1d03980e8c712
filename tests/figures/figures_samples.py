"""Made-up results for tests of figures and pages; every name says that they are test data."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from backend.evaluation.statistics import estimate
from backend.experiments.cells import Cell
from backend.experiments.evaluations import FidelityEvaluation
from backend.experiments.evaluations.kinds import Dtype
from backend.experiments.evaluations.latency import LatencyEvaluation
from backend.home import Home
from backend.sparsity import Policy, make_policy

MODEL = "test-model"
TEXT = "test-text"
WINDOWS = 4
WINDOW = 64
DENSE_NLL = (3.0, 2.6, 3.3, 2.9)
STEEPNESS = {
    "dip": 0.8, "gate_pruning": 2.2, "up_pruning": 2.0, "glu_pruning": 9.0, "magnitude_norm": 8.0,
    "glu_oracle": 0.15, "random": 30.0,
}  # fmt: skip
SHARES = (0.3, 0.5, 0.7, 0.9)
RUN = "20260101-000000-test-data-0000"
INT8_RUN = "20260101-000002-test-int8-0000"
LATENCY_RUN = "20260101-000003-test-latency-0000"
PROVENANCE = {
    "commit": "0" * 40,
    "packages": {"torch": "0.0-test"},
    "python": "3.11",
    "machine": {"processor": "test processor", "cores": 2, "memory_bytes": 1},
    "device": "cpu",
    "threads": 2,
    "process": {"pid": 1, "started": 0.0},
}


def policies() -> list[Policy]:
    """Return dense and every other method at four settings."""
    made = [make_policy("dense", {})]
    for name in STEEPNESS:
        setting = "density" if name == "dip" else "keep"
        made += [make_policy(name, {setting: share}) for share in SHARES]
    return made


def cell(policy: Policy, model: str = MODEL, text: str = TEXT, dtype: Dtype = "float32") -> Cell:
    """Return the cell of a policy on the made-up text."""
    evaluation = FidelityEvaluation(text=text, tokens=WINDOWS * WINDOW, window=WINDOW, dtype=dtype)
    return Cell(model, f"sha-{model}".ljust(64, "0"), policy, evaluation, f"sha-{text}".ljust(64, "0"))


def window_losses(policy: Policy) -> list[float]:
    """Return a made-up ΔNLL a window: a parabola in the density, a little different in each window."""
    density = policy.expected_density()
    assert density is not None
    height = STEEPNESS.get(policy.name, 0.0) * (1 - density) ** 2
    return [height * (1 + 0.1 * math.sin(1.7 * window + len(policy.name))) for window in range(WINDOWS)]


def finished(made: Cell) -> dict[str, Any]:
    """Return the ``cell_finished`` event of a made-up cell."""
    policy = made.policy
    losses = window_losses(policy)
    rounding = 0.01 if made.evaluation.dtype == "int8" else 0.0
    density = policy.expected_density()
    assert density is not None
    counts = [WINDOW - 1] * WINDOWS
    windows = {
        "nll": [dense + rounding + loss for dense, loss in zip(DENSE_NLL, losses, strict=True)],
        "delta_nll": losses,
        "kl": [1.1 * loss for loss in losses],
        "agreement": [math.exp(-loss) for loss in losses],
    }
    found = {metric: estimate(values, counts) for metric, values in windows.items()}
    perplexity = math.exp(found["nll"].value)
    spread = perplexity * (found["nll"].stderr or 0.0)
    numbers: list[tuple[str, float, float | None, str]] = [("perplexity", perplexity, spread, "")]
    units = {"agreement": "share of tokens"}
    numbers += [(m, e.value, e.stderr, units.get(m, "nats/token")) for m, e in found.items()]
    numbers += [
        ("mlp_density", density, None, "share of MLP weights"),
        ("model_density", 0.4 + 0.6 * density, None, "share of all weights"),
        ("bytes_per_token", 5e8 * (0.4 + 0.6 * density), None, "B/token"),
    ]
    measurements = [
        {"metric": m, "value": v, "stderr": s, "n": sum(counts), "unit": u, "how": policy.how}
        for m, v, s, u in numbers
    ]
    return {
        "kind": "cell_finished", "cell": made.id, "description": made.description(),
        "measurements": measurements, "windows": windows, "seconds": 1.5,
    }  # fmt: skip


def write_run(
    home: Home,
    cells: Iterable[Cell],
    run: str = RUN,
    status: str | None = "done",
    more: Iterable[dict[str, Any]] = (),
    process: dict[str, Any] | None = None,
) -> Path:
    """Write the folder of a made-up run; with ``status`` None it has not ended, and ``process`` runs it."""
    folder = home.runs / run
    folder.mkdir(parents=True)
    spec = {
        "name": "test-data",
        "model": MODEL,
        "evaluation": {"text": TEXT, "tokens": WINDOWS * WINDOW, "window": WINDOW},
        "policies": [{"method": "dense"}, {"method": "dip", "density": list(SHARES)}],
    }
    asked = {"run": run, "name": "test-data", "kind": "sweep", "created_at": _time(0), "spec": spec}
    (folder / "run.json").write_text(json.dumps(asked))
    cells = list(cells)
    provenance = PROVENANCE | ({} if process is None else {"process": process})
    events: list[dict[str, Any]] = [{"kind": "run_started", "provenance": provenance}]
    events += [{"kind": "run_planned", "cells": [made.id for made in cells]}]
    events += [
        timed(made) if isinstance(made.evaluation, LatencyEvaluation) else finished(made) for made in cells
    ]
    events += more
    if status is not None:
        events.append(
            {"kind": "run_finished", "status": status, "message": f"{len(cells)} cells run, 0 found."}
        )
    lines = (json.dumps({"at": _time(second), **event}) for second, event in enumerate(events))
    (folder / "events.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def write_latencies(home: Home) -> Home:
    """Add int8's fidelity and latencies of some methods in both precisions; return the home."""
    chosen = [p for p in policies() if p.name in ("dense", "dip")]
    write_run(home, [cell(policy, dtype="int8") for policy in chosen], INT8_RUN)
    timed = [p for p in policies() if p.name in ("dip", "gate_pruning")]
    cells = [latency_cell(policy, dtype) for dtype in ("float32", "int8") for policy in timed]
    cells.append(latency_cell(make_policy("dip", {"density": 0.5}), "float32", execution="masked"))
    write_run(home, cells, LATENCY_RUN)
    return home


def latency_cell(policy: Policy, dtype: Dtype, **settings: Any) -> Cell:
    """Return the cell of a policy's latency on the made-up machine."""
    evaluation = LatencyEvaluation(text=TEXT, dtype=dtype, **settings)
    sha, text_sha = f"sha-{MODEL}".ljust(64, "0"), f"sha-{TEXT}".ljust(64, "0")
    return Cell(MODEL, sha, policy, evaluation, text_sha, "test machine")


def timed(made: Cell) -> dict[str, Any]:
    """Return the ``cell_finished`` event of a made-up latency: time is bytes over 25 GB/s and a little."""
    density = made.policy.expected_density()
    assert density is not None
    size = 1e8 if made.evaluation.dtype == "int8" else 4e8
    rest = 0.4 * size
    slow = 1.5 if made.evaluation.canonical()["execution"] == "masked" else 1.0
    mlp, dense_mlp, other = (1e3 * each / 25e9 for each in (0.6 * size * density * slow, 0.6 * size, rest))
    ms, dense_ms = mlp + other, dense_mlp + other
    read = rest + 0.6 * size * density
    numbers: list[tuple[str, float, float | None]] = [
        ("tokens_per_s", 1e3 / ms, None), ("ms_per_token_median", ms, 0.02 * ms),
        ("ms_per_token_p10", 0.95 * ms, None), ("ms_per_token_p90", 1.2 * ms, None),
        ("dense_ms_per_token_median", dense_ms, 0.01 * dense_ms), ("speedup", dense_ms / ms, 0.02),
        ("mlp_ms", mlp, None), ("dense_mlp_ms", dense_mlp, None), ("mlp_ratio", mlp / dense_mlp, None),
        ("attention_ms", 0.5 * other, None), ("head_ms", 0.4 * other, None),
        ("overhead_ms", 0.1 * other, None),
        ("mlp_density", density, None), ("model_density", 0.4 + 0.6 * density, None),
        ("bytes_per_token", read, None), ("kv_bytes_per_token", 2e6, None),
        ("bandwidth_bytes_per_s", 30e9, None), ("read_bytes_per_s", (read + 2e6) / ms * 1e3, None),
        ("bandwidth_share", (read + 2e6) / ms * 1e3 / 30e9, None),
        ("dense_bandwidth_share", (size + 2e6) / dense_ms * 1e3 / 30e9, None),
        ("others_cpu_share", 0.01 if density > 0.4 else 0.3, None),
        ("disturbed_rounds", float(density < 0.4), None), ("lean_loop", 1.0, None),
    ]  # fmt: skip
    measurements = [
        {"metric": m, "value": v, "stderr": s, "n": 384, "unit": "", "how": "measured"} for m, v, s in numbers
    ]
    return {
        "kind": "cell_finished", "cell": made.id, "description": made.description(),
        "measurements": measurements, "windows": {}, "seconds": 20.0,
    }  # fmt: skip


def write_results(home: Home) -> Home:
    """Fill a home with one run of every method; return the home."""
    write_run(home, [cell(policy) for policy in policies()])
    return home


def _time(second: int) -> str:
    return f"2026-01-01T00:{second // 60 % 60:02d}:{second % 60:02d}.000+00:00"
