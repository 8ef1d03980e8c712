"""What the page "Mixture of experts" asks of the store: routings with what they cost, layer by layer too."""

from __future__ import annotations

import pandas as pd

from backend.experiments.provenance import machine_of
from backend.results import queries
from backend.results.store import Store

KIND = "routing"
WITH_STDERR = ("perplexity", "nll", "delta_nll", "kl", "agreement", "miss_rate")
"""Metrics with a standard error in a column ``…_stderr``."""
METRICS = (
    *WITH_STDERR, "misses_per_token", "miss_bytes_per_token", "experts_per_token", "routing_change",
    "routing_agreement", "lost_mass", "prefetch_recall", "prefetch_control", "prefetch_wasted",
)  # fmt: skip
COLUMNS = (
    "cell_id", "run_id", "model", "model_sha256", "policy", "policy_version", "settings", "text",
    "text_sha256", "evaluation", "tokens", "window", "stride", "dtype", "how", "seconds", "at",
    "scored_tokens", *METRICS, *(f"{name}_stderr" for name in WITH_STDERR),
)  # fmt: skip


def routing_points(store: Store) -> pd.DataFrame:
    """Return one row a routing cell with its latest result: ``COLUMNS``, those with no value as NaN."""
    cells = store.frame(
        f"""
        SELECT c.* REPLACE (c.settings::VARCHAR AS settings, c.evaluation::VARCHAR AS evaluation),
               l.run_id, l.seconds, l."at"
        FROM cells c JOIN latest l USING (cell_id)
        WHERE c.evaluation ->> '$.kind' = '{KIND}' ORDER BY policy, settings, cell_id
        """
    )
    if cells.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    long = store.frame(
        f"""
        SELECT m.cell_id, m.metric, m.value, m.stderr, m.n, m.how
        FROM measurements m SEMI JOIN latest USING (cell_id, run_id) JOIN cells c USING (cell_id)
        WHERE c.evaluation ->> '$.kind' = '{KIND}' AND m.metric IN (SELECT unnest($metrics::VARCHAR[]))
        """,
        {"metrics": list(METRICS)},
    )
    values = long.pivot(index="cell_id", columns="metric", values="value")
    errors = long.pivot(index="cell_id", columns="metric", values="stderr").add_suffix("_stderr")
    nll = long[long["metric"] == "nll"].set_index("cell_id")[["n", "how"]]
    found = cells.join(values, on="cell_id").join(errors, on="cell_id")
    found = found.join(nll.rename(columns={"n": "scored_tokens"}), on="cell_id")
    return found.reindex(columns=list(COLUMNS))


def layer_miss_rates(store: Store, cell_id: str) -> dict[int, float]:
    """Return the miss rate of each layer that a cell measured, by the layer's index; empty if it did not."""
    rows = store.rows(
        """
        SELECT regexp_extract(metric, '^miss_rate_([0-9]+)$', 1)::BIGINT AS layer, value
        FROM measurements SEMI JOIN latest USING (cell_id, run_id)
        WHERE cell_id = $cell AND regexp_matches(metric, '^miss_rate_[0-9]+$') ORDER BY layer
        """,
        {"cell": cell_id},
    )
    return {int(layer): float(value) for layer, value in rows}


STORE_KIND = "expert_store"
STORE_METRICS = (
    "tokens_per_s", "ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90",
    "resident_ms_per_token_median", "stock_ms_per_token_median", "speed_of_resident", "miss_rate",
    "loaded_bytes_per_token", "waiting_share", "cached_share", "disturbed_rounds",
)  # fmt: skip
STORE_COLUMNS = (
    "cell_id", "run_id", "model", "model_sha256", "policy", "settings", "evaluation", "text", "dtype", "at",
    "machine", *STORE_METRICS, "ms_per_token_median_stderr", "speed_of_resident_stderr",
)  # fmt: skip


def store_speeds(store: Store) -> pd.DataFrame:
    """Return one row a measured decoding with experts loaded from disk: ``STORE_COLUMNS``."""
    cells = store.frame(
        f"""
        SELECT c.* REPLACE (c.settings::VARCHAR AS settings, c.evaluation::VARCHAR AS evaluation),
               l.run_id, l."at"
        FROM cells c JOIN latest l USING (cell_id)
        WHERE c.evaluation ->> '$.kind' = '{STORE_KIND}' ORDER BY policy, settings, cell_id
        """
    )
    if cells.empty:
        return pd.DataFrame(columns=list(STORE_COLUMNS))
    long = store.frame(
        f"""
        SELECT m.cell_id, m.metric, m.value, m.stderr
        FROM measurements m SEMI JOIN latest USING (cell_id, run_id) JOIN cells c USING (cell_id)
        WHERE c.evaluation ->> '$.kind' = '{STORE_KIND}'
        """
    )
    values = long.pivot(index="cell_id", columns="metric", values="value")
    errors = long.pivot(index="cell_id", columns="metric", values="stderr").add_suffix("_stderr")
    cells["machine"] = [_machine(store, run_id) for run_id in cells["run_id"]]
    return cells.join(values, on="cell_id").join(errors, on="cell_id").reindex(columns=list(STORE_COLUMNS))


def _machine(store: Store, run_id: str) -> str:
    run = queries.run(store, run_id)
    return machine_of({} if run is None else run.provenance)
