"""Measured latencies: each cell's latest, with its settings and the machine that its run names."""

from __future__ import annotations

import json

import pandas as pd

from backend.experiments.provenance import machine_of
from backend.results import queries
from backend.results.store import Store

KIND = "latency"
DESCRIBED = (
    "cell_id", "run_id", "model", "model_sha256", "policy", "policy_version", "settings", "dtype",
    "tokens", "seconds", "at",
)  # fmt: skip
"""Columns that are those of :func:`backend.results.queries.points`."""
SETTINGS = ("prompt", "rounds", "execution", "prefill")
"""Settings of the evaluation that are columns."""
METRICS = (
    "tokens_per_s", "ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90",
    "dense_ms_per_token_median", "speedup", "mlp_ms", "dense_mlp_ms", "mlp_ratio", "attention_ms", "head_ms",
    "overhead_ms", "prompt_ms", "dense_prompt_ms", "mlp_density", "model_density", "bytes_per_token",
    "kv_bytes_per_token",
    "bandwidth_bytes_per_s", "read_bytes_per_s", "bandwidth_share", "dense_bandwidth_share",
    "others_cpu_share", "disturbed_rounds", "lean_loop",
)  # fmt: skip
"""Columns that were measured; units in their names, shares from 0 to 1."""
WITH_STDERR = ("ms_per_token_median", "dense_ms_per_token_median", "speedup")
"""Metrics with a standard error over rounds in a column ``…_stderr``."""
COLUMNS = (*DESCRIBED, *SETTINGS, "machine", *METRICS, *(f"{name}_stderr" for name in WITH_STDERR))


def latencies(store: Store) -> pd.DataFrame:
    """Return one row a latency cell with its latest result: ``COLUMNS``, those with no value as NaN."""
    points = queries.points(store, kind=KIND)
    if points.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    found = points[list(DESCRIBED)].copy()
    asked = [json.loads(text) for text in points["evaluation"]]
    for name in SETTINGS:
        found[name] = [said.get(name) for said in asked]
    made = {run_id: _machine(store, run_id) for run_id in found["run_id"].unique()}
    found["machine"] = [made[run_id] for run_id in found["run_id"]]
    measured = _measured(store, list(found["cell_id"]))
    return found.join(measured, on="cell_id").reindex(columns=list(COLUMNS))


def _machine(store: Store, run_id: str) -> str:
    run = queries.run(store, run_id)
    return machine_of({} if run is None else run.provenance)


def _measured(store: Store, cell_ids: list[str]) -> pd.DataFrame:
    """Return values and standard errors, one row a cell (index: cell_id)."""
    long = store.frame(
        """
        SELECT cell_id, metric, value, stderr FROM measurements SEMI JOIN latest USING (cell_id, run_id)
        WHERE cell_id IN (SELECT unnest($cells::VARCHAR[]))
        """,
        {"cells": cell_ids},
    )
    values = long.pivot(index="cell_id", columns="metric", values="value")
    spreads = long.pivot(index="cell_id", columns="metric", values="stderr")
    return values.join(spreads.reindex(columns=list(WITH_STDERR)).add_suffix("_stderr"))
