"""The store's schema, as numbered migrations: each is a function, run once, in order, in a transaction.

Never change a migration that has been released; add another. A test asserts the schema they end in.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from backend.errors import UserError

Migration = Callable[[duckdb.DuckDBPyConnection], None]

MEASURED_WITH_STDERR = (
    "perplexity", "nll", "delta_nll", "kl", "agreement", "accuracy", "bleu", "rouge_l", "token_agreement",
)  # fmt: skip
"""Metrics that are a column with their standard error beside it in the view ``wide``."""
MEASURED = (
    "mlp_density", "model_density", "bytes_per_token", "ms_per_token_median", "ms_per_token_p10",
    "ms_per_token_p90", "tokens_per_s", "dense_ms_per_token_median", "speedup", "mlp_ms", "attention_ms",
    "head_ms", "overhead_ms", "mlp_ratio", "read_bytes_per_s", "bandwidth_bytes_per_s", "bandwidth_share",
)  # fmt: skip
"""Metrics that are a column of their own in the view ``wide``."""


def create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables: runs, cells, results, measurements, windows, events and what was read of which file.

    Times are UTC. ``cells.stride`` is the one that holds: the window's length where none was set.
    """
    connection.execute(
        """
        CREATE TABLE runs (
            run_id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, kind VARCHAR NOT NULL, spec JSON,
            status VARCHAR NOT NULL, created_at TIMESTAMP, started_at TIMESTAMP, finished_at TIMESTAMP,
            provenance JSON, message VARCHAR, planned JSON, source VARCHAR NOT NULL, bundle VARCHAR);
        CREATE TABLE cells (
            cell_id VARCHAR PRIMARY KEY, model VARCHAR NOT NULL, model_sha256 VARCHAR,
            policy VARCHAR NOT NULL, policy_version BIGINT, settings JSON NOT NULL,
            text VARCHAR, text_sha256 VARCHAR, evaluation JSON NOT NULL,
            tokens BIGINT, "window" BIGINT, stride BIGINT, dtype VARCHAR);
        CREATE TABLE results (
            cell_id VARCHAR, run_id VARCHAR, "at" TIMESTAMP NOT NULL, seconds DOUBLE,
            PRIMARY KEY (cell_id, run_id));
        CREATE TABLE measurements (
            cell_id VARCHAR, run_id VARCHAR, metric VARCHAR, value DOUBLE NOT NULL, stderr DOUBLE,
            n BIGINT, unit VARCHAR NOT NULL, how VARCHAR NOT NULL, PRIMARY KEY (cell_id, run_id, metric));
        CREATE TABLE windows (
            cell_id VARCHAR NOT NULL, run_id VARCHAR NOT NULL, metric VARCHAR NOT NULL,
            window_index INTEGER NOT NULL, value DOUBLE);
        CREATE TABLE events (
            run_id VARCHAR NOT NULL, seq BIGINT NOT NULL, "at" TIMESTAMP NOT NULL, kind VARCHAR NOT NULL,
            cell_id VARCHAR, payload JSON NOT NULL);
        CREATE TABLE ingest_state (
            run_id VARCHAR PRIMARY KEY, byte_offset BIGINT NOT NULL, lines BIGINT NOT NULL,
            tail VARCHAR NOT NULL);
        CREATE TABLE imports (hash VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, source VARCHAR NOT NULL);
        """
    )


def create_views(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the views ``latest`` (each cell's last result) and ``wide`` (one row a cell and run)."""
    connection.execute(
        f"""
        CREATE VIEW latest AS
            SELECT * FROM results
            QUALIFY row_number() OVER (PARTITION BY cell_id ORDER BY "at" DESC, run_id DESC) = 1;
        CREATE VIEW wide AS {wide("results")};
        """
    )


def wide(results: str) -> str:
    """Return the query of the view ``wide`` over the rows of ``results`` only.

    A filter that is set on the view is applied after every measurement was pivoted; one in ``results``
    before, which is several times as fast.

    Args:
        results: A table, view or name of a WITH clause with the columns of the table ``results``.
    """
    columns = [_pivoted(metric, "value", metric) for metric in (*MEASURED_WITH_STDERR, *MEASURED)]
    columns += [_pivoted(metric, "stderr", f"{metric}_stderr") for metric in MEASURED_WITH_STDERR]
    return f"""
        SELECT r.cell_id, r.run_id, c.* EXCLUDE (cell_id), m.* EXCLUDE (cell_id, run_id), r.seconds, r."at"
        FROM {results} r
        JOIN cells c ON c.cell_id = r.cell_id
        JOIN (
            SELECT cell_id, run_id, {", ".join(columns)},
                   max(n) FILTER (metric IN ('nll', 'perplexity')) AS scored_tokens,
                   coalesce(max(how) FILTER (metric = 'perplexity'), max(how)) AS how
            FROM measurements SEMI JOIN {results} USING (cell_id, run_id) GROUP BY cell_id, run_id
        ) m ON m.cell_id = r.cell_id AND m.run_id = r.run_id
    """


def widen_view(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the view ``wide`` the columns of latency and of answers."""
    connection.execute(f"DROP VIEW wide; CREATE VIEW wide AS {wide('results')}")


def create_generations(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the tables of generated texts: prompts, their sides, columns, tokens, scores and how sides ended.

    ``item`` is the prompt's number in its run, ``side`` 0 the dense model. A token and its score by the
    dense model come at different times, so each has a row of its own.
    """
    place = "run_id VARCHAR NOT NULL, item INTEGER NOT NULL, side INTEGER NOT NULL"
    form = f"{place}, form VARCHAR NOT NULL"
    connection.execute(
        f"""
        CREATE TABLE generations (
            run_id VARCHAR NOT NULL, item INTEGER NOT NULL, "at" TIMESTAMP NOT NULL, model VARCHAR NOT NULL,
            model_sha256 VARCHAR, prompt VARCHAR NOT NULL, read_as VARCHAR NOT NULL, prompt_tokens BIGINT);
        CREATE TABLE generation_sides (
            {place}, policy VARCHAR NOT NULL, policy_version BIGINT, settings JSON NOT NULL,
            how VARCHAR NOT NULL, execution VARCHAR NOT NULL, no_text VARCHAR NOT NULL);
        CREATE TABLE generation_columns (
            {place}, name VARCHAR NOT NULL, label VARCHAR NOT NULL, unit VARCHAR NOT NULL, better VARCHAR,
            low DOUBLE, high DOUBLE);
        CREATE TABLE generation_tokens (
            {form}, place INTEGER NOT NULL, token_id BIGINT NOT NULL, token_text VARCHAR NOT NULL,
            logprob DOUBLE, seconds DOUBLE, top JSON, own JSON, layers JSON);
        CREATE TABLE generation_scores (
            {form}, place INTEGER NOT NULL, dense_logprob DOUBLE, kl DOUBLE, dense_rank BIGINT, top JSON);
        CREATE TABLE generation_ends (
            {form}, ended VARCHAR NOT NULL, tokens BIGINT, seconds DOUBLE, tokens_per_s DOUBLE,
            first_token_s DOUBLE, mlp_density DOUBLE, model_density DOUBLE, loop VARCHAR, counted JSON);
        """
    )


MIGRATIONS: list[Migration] = [create_tables, create_views, widen_view, create_generations]


def migrate(connection: duckdb.DuckDBPyConnection) -> None:
    """Bring the database to this program's schema.

    Args:
        connection: An open database; its tables are made if it has none.

    Raises:
        UserError: A newer version of the program made it; it is left as it is.
    """
    version = _schema_version(connection)
    if version > len(MIGRATIONS):
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
        raise UserError(
            f"The results database was written by a newer version of Sparsity Lens (schema {version}, this "
            f"version knows up to {len(MIGRATIONS)}); update the program or name another home with --home."
        )
    for number, migration in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN")
        if number == 1:
            connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
            connection.execute("INSERT INTO schema_version VALUES (0)")
        migration(connection)
        connection.execute("UPDATE schema_version SET version = $number", {"number": number})
        connection.execute("COMMIT")


def _schema_version(connection: duckdb.DuckDBPyConnection) -> int:
    found = connection.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'schema_version'").fetchall()
    return int(connection.execute("SELECT version FROM schema_version").fetchall()[0][0]) if found else 0


def _pivoted(metric: str, column: str, name: str) -> str:
    return f"max({column}) FILTER (metric = '{metric}') AS {name}"
