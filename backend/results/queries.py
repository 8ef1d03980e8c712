"""What pages and the CLI ask of the store. Values always travel as parameters, never inside the SQL.

"Latest" means: where several runs measured the same cell, the result that was finished last.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pandas as pd

from backend.errors import UserError
from backend.experiments.evaluations.kinds import DEFAULT_KIND
from backend.registry import did_you_mean
from backend.results.migrations import wide
from backend.results.store import Store

if TYPE_CHECKING:
    from backend.experiments.events import Measurement

MEASUREMENT_COLUMNS = (
    "model", "policy", "settings", "text", "metric", "value", "stderr", "n", "unit", "how", "run",
)  # fmt: skip
"""The columns of :func:`measurements`, which are those of the CLI's ``results``."""
_KIND = f"coalesce(evaluation ->> '$.kind', '{DEFAULT_KIND}')"
"""The kind of a cell's evaluation; the default one is not written."""
_PROMPT = "TRY_CAST(evaluation ->> '$.prompt' AS BIGINT)"
"""Dense tokens before the sparse ones of each window of a text; NULL where there were none."""
_NUMERIC = ("value", "stderr", "n")


@dataclass(frozen=True)
class StoredRun:
    """One run.

    Attributes:
        run_id: Its id, the name of its folder.
        name: Its name for people.
        kind: ``sweep`` or ``point``.
        status: ``queued``, ``running``, ``paused``, ``done``, ``cancelled``, ``failed`` or ``interrupted``.
        source: ``local``, ``seed`` or ``import``.
        created_at: UTC.
        started_at: UTC; None before.
        finished_at: UTC; None before.
        message: What its end said.
        spec: What was asked.
        provenance: Git commit, packages, device, threads, dtype, seeds, process.
        planned: The ids of its cells, in order.
    """

    run_id: str
    name: str
    kind: str
    status: str
    source: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    message: str | None
    spec: dict[str, Any]
    provenance: dict[str, Any]
    planned: list[str]


@dataclass(frozen=True)
class StoredResult:
    """A cell's latest result.

    Attributes:
        cell_id: The cell.
        run_id: The run that measured it.
        finished_at: When, UTC.
        seconds: How long it took.
        measurements: What was measured, as in its ``cell_finished`` event.
    """

    cell_id: str
    run_id: str
    finished_at: datetime
    seconds: float | None
    measurements: list[Measurement]


def runs(store: Store) -> pd.DataFrame:
    """Return one row a run, the newest first.

    Columns: run_id, name, kind, status, source, created_at, started_at, finished_at, message, and the numbers
    of cells: planned, measured (by this run), found (of earlier runs, or of this one before it was resumed),
    done (measured or found, each once; a bundle brings no log along: there, what is stored of them), failed.
    """
    return store.frame(
        """
        WITH measured AS (SELECT run_id, count(*) AS cells FROM results GROUP BY run_id),
        ended AS (
            SELECT run_id, count(*) AS done FROM (
                SELECT run_id, cell_id FROM results
                UNION SELECT run_id, cell_id FROM events WHERE kind = 'cell_found'
                UNION SELECT run_id, cell_id FROM (
                    SELECT run_id, unnest(from_json(planned, '["VARCHAR"]')) AS cell_id FROM runs
                    WHERE source <> 'local') SEMI JOIN results USING (cell_id))
            GROUP BY run_id),
        outcome AS (
            SELECT e.run_id,
                   count(DISTINCT e.cell_id) FILTER (kind = 'cell_found') AS found,
                   count(DISTINCT e.cell_id) FILTER (kind = 'cell_failed' AND r.cell_id IS NULL) AS failed
            FROM events e LEFT JOIN results r ON r.run_id = e.run_id AND r.cell_id = e.cell_id
            WHERE kind IN ('cell_found', 'cell_failed') GROUP BY e.run_id)
        SELECT run_id, name, kind, status, source, created_at, started_at, finished_at, message,
               coalesce(json_array_length(planned), 0)::BIGINT AS planned,
               coalesce(cells, 0) AS measured, coalesce(found, 0) AS found, coalesce(done, 0) AS done,
               coalesce(failed, 0) AS failed
        FROM runs LEFT JOIN measured USING (run_id) LEFT JOIN ended USING (run_id)
        LEFT JOIN outcome USING (run_id)
        ORDER BY created_at DESC NULLS LAST, run_id DESC
        """
    )


def run(store: Store, run_id: str) -> StoredRun | None:
    """Return one run, None if there is none of that id."""
    query = """
        SELECT run_id, name, kind, status, source, created_at, started_at, finished_at, message,
               coalesce(spec, '{}'), coalesce(provenance, '{}'), coalesce(planned, '[]')
        FROM runs WHERE run_id = $run
    """
    rows = store.rows(query, {"run": run_id})
    return StoredRun(*rows[0][:9], *(json.loads(text) for text in rows[0][9:])) if rows else None


def events(store: Store, run_id: str, last: int = 200) -> pd.DataFrame:
    """Return the last events of a run in their order.

    Columns: seq (from 0), at, kind, cell_id, payload (JSON of the other keys; what a ``cell_finished``
    measured is left out: it is in :func:`points` and :func:`window_values`).
    """
    return store.frame(
        """
        SELECT * FROM (
            SELECT seq, "at", kind, cell_id, payload FROM events WHERE run_id = $run
            ORDER BY seq DESC LIMIT $last
        ) ORDER BY seq
        """,
        {"run": run_id, "last": last},
    )


def progress(store: Store, run_id: str) -> dict[str, Any] | None:
    """Return ``done`` and ``total`` windows and ``seconds_left`` of a run, None before its first progress."""
    query = "SELECT max_by(payload, seq) FROM events WHERE run_id = $run AND kind = 'progress'"
    payload = store.rows(query, {"run": run_id})[0][0]
    said: dict[str, Any] | None = json.loads(payload) if payload else None
    return said


def points(
    store: Store,
    *,
    model: str | None = None,
    model_sha256: str | None = None,
    text: str | None = None,
    text_sha256: str | None = None,
    tokens: int | None = None,
    window: int | None = None,
    stride: int | None = None,
    dtype: str | None = None,
    prompt: int | None = None,
    policy: str | None = None,
    kind: str | None = None,
    run_id: str | None = None,
    cell_ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return one row a cell with its latest result, for those cells that agree with all that is given.

    Args:
        store: The store.
        model: The model's name.
        model_sha256: Hash of its weights.
        text: The text's name or path.
        text_sha256: Hash of the text.
        tokens: Tokens fed.
        window: Tokens of one window.
        stride: Tokens between windows (the window's length where none was set).
        dtype: Precision.
        prompt: Dense tokens that begin each window. Where a window is given and this is not, only cells
            without such a prompt are returned: the two are not to be compared.
        policy: The method's name.
        kind: The evaluation's kind ("fidelity", "answers").
        run_id: Only cells that this run measured or found.
        cell_ids: Only these cells.

    Returns:
        Columns: cell_id, run_id, model, model_sha256, policy, policy_version, settings (JSON), text,
        text_sha256, evaluation (JSON), tokens, window, stride, dtype, then a column a metric and ``_stderr``
        (see ``migrations.MEASURED``), scored_tokens, how, seconds, at; ordered by policy, settings and cell.
    """
    equal = {
        "model": model, "model_sha256": model_sha256, "text": text, "text_sha256": text_sha256,
        "tokens": tokens, "window": window, "stride": stride, "dtype": dtype, "policy": policy,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in equal.items() if value is not None}
    conditions = [f'"{name}" = ${name}' for name in given]
    if prompt is not None or window is not None:
        given["prompt"] = prompt
        conditions.append(f"{_PROMPT} IS NOT DISTINCT FROM $prompt::BIGINT")
    if kind is not None:
        given["kind"] = kind
        conditions.append(f"{_KIND} = $kind")
    if run_id is not None:
        given["run"] = run_id
        conditions.append(
            """cell_id IN (SELECT cell_id FROM results WHERE run_id = $run
               UNION SELECT cell_id FROM events WHERE run_id = $run AND kind = 'cell_found')"""
        )
    if cell_ids is not None:
        given["cells"] = list(cell_ids)
        conditions.append("cell_id IN (SELECT unnest($cells::VARCHAR[]))")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    return store.frame(
        f"""
        WITH chosen AS MATERIALIZED (
            SELECT * FROM latest WHERE cell_id IN (SELECT cell_id FROM cells {where}))
        SELECT * FROM ({wide("chosen")})
        ORDER BY policy, settings::VARCHAR, cell_id
        """,
        given,
    )


def _of_evaluations(condition: str) -> str:
    """Return a condition on the JSON of a cell's evaluation, parsed once for each text there is of it."""
    return f"evaluation IN (SELECT evaluation FROM (SELECT DISTINCT evaluation FROM cells) WHERE {condition})"


def evaluations(store: Store, policies: Collection[str] | None = None) -> pd.DataFrame:
    """Return on what windows of what text fidelity was measured, those with most cells first.

    Windows that begin with a dense prompt are left out: what was measured on them compares with nothing else.

    Args:
        store: The store.
        policies: Only where one of these methods was measured; None for all.

    Returns:
        Columns: kind, model, model_sha256, text, text_sha256, tokens, window, stride, dtype, cells.
    """
    given = None if policies is None else {"policies": list(policies)}
    having = "" if policies is None else "HAVING bool_or(list_contains($policies::VARCHAR[], policy))"
    return store.frame(
        f"""
        SELECT '{DEFAULT_KIND}' AS kind, max(model) AS model, model_sha256, max(text) AS text, text_sha256,
               tokens, "window", stride, dtype, count(*) AS cells
        FROM cells SEMI JOIN results USING (cell_id)
        WHERE {_of_evaluations(f"{_KIND} = '{DEFAULT_KIND}' AND {_PROMPT} IS NULL")}
        GROUP BY model_sha256, text_sha256, tokens, "window", stride, dtype
        {having} ORDER BY cells DESC, model, text, tokens, "window", stride, dtype
        """,
        given,
    )


def seconds_per_token(store: Store) -> float | None:
    """Return the median time that fidelity took for a token, None if there is none."""
    (found,) = store.rows(
        "SELECT median(seconds / tokens) FROM results JOIN cells USING (cell_id) "
        f"WHERE {_KIND} = '{DEFAULT_KIND}'"
    )
    return None if found[0] is None else float(found[0])


def find(store: Store, cell_id: str) -> StoredResult | None:
    """Return a cell's latest result, None if no run measured it."""
    head = store.rows('SELECT run_id, "at", seconds FROM latest WHERE cell_id = $cell', {"cell": cell_id})
    if not head:
        return None
    run_id, finished_at, seconds = head[0]
    query = """
        SELECT metric, value, stderr, n, unit, how FROM measurements
        WHERE cell_id = $cell AND run_id = $run ORDER BY metric
    """
    keys = ("metric", "value", "stderr", "n", "unit", "how")
    rows = store.rows(query, {"cell": cell_id, "run": run_id})
    found: list[Any] = [dict(zip(keys, row, strict=True)) for row in rows]
    return StoredResult(cell_id, run_id, finished_at, seconds, found)


def window_values(store: Store, cell_ids: Sequence[str], metric: str) -> pd.DataFrame:
    """Return the values of a metric by window, from each cell's latest result.

    Args:
        store: The store.
        cell_ids: Which cells; those without such values are left out.
        metric: Which metric, as the events name it.

    Returns:
        One row a cell (index: cell_id, in the order given), one column a window (its index, from 0).
    """
    long = store.frame(
        """
        SELECT cell_id, window_index AS "window", value
        FROM windows SEMI JOIN latest USING (cell_id, run_id)
        WHERE cell_id IN (SELECT unnest($cells::VARCHAR[])) AND metric = $metric
        """,
        {"cells": list(cell_ids), "metric": metric},
    )
    values = long.pivot(index="cell_id", columns="window", values="value")
    return values.loc[[cell for cell in dict.fromkeys(cell_ids) if cell in values.index]]


def measurements(store: Store, where: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return one row a measurement of any run, with exactly ``MEASUREMENT_COLUMNS``.

    Args:
        store: The store.
        where: Column to the value it must have.

    Raises:
        UserError: There is no such column, or a numeric one is compared with something else.
    """
    given = {column: _comparable(column, value) for column, value in (where or {}).items()}
    conditions = " AND ".join(f"{column} = ${column}" for column in given) or "true"
    return store.frame(
        f"""
        SELECT {", ".join(MEASUREMENT_COLUMNS)} FROM (
            SELECT c.model, c.policy, c.settings::VARCHAR AS settings, c.text, m.metric, m.value, m.stderr,
                   m.n, m.unit, m.how, m.run_id AS run, r."at", m.cell_id
            FROM measurements m JOIN cells c USING (cell_id) JOIN results r USING (cell_id, run_id))
        WHERE {conditions} ORDER BY "at", run, cell_id, metric
        """,
        given,
    )


def _comparable(column: str, value: str) -> str | float:
    if column not in MEASUREMENT_COLUMNS:
        hint = did_you_mean(column, list(MEASUREMENT_COLUMNS))
        raise UserError(f"Results have no column '{column}'; {hint}")
    if column not in _NUMERIC:
        return str(value)
    try:
        return float(value)
    except ValueError as error:
        raise UserError(
            f"The column '{column}' holds numbers; it cannot be compared with '{value}'."
        ) from error
