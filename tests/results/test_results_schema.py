from __future__ import annotations

import duckdb
import pytest

from backend.errors import UserError
from backend.home import Home
from backend.results import Store
from backend.results.migrations import MIGRATIONS

SCHEMA = """
cells.cell_id VARCHAR
cells.model VARCHAR
cells.model_sha256 VARCHAR
cells.policy VARCHAR
cells.policy_version BIGINT
cells.settings JSON
cells.text VARCHAR
cells.text_sha256 VARCHAR
cells.evaluation JSON
cells.tokens BIGINT
cells.window BIGINT
cells.stride BIGINT
cells.dtype VARCHAR
events.run_id VARCHAR
events.seq BIGINT
events.at TIMESTAMP
events.kind VARCHAR
events.cell_id VARCHAR
events.payload JSON
generation_columns.run_id VARCHAR
generation_columns.item INTEGER
generation_columns.side INTEGER
generation_columns.name VARCHAR
generation_columns.label VARCHAR
generation_columns.unit VARCHAR
generation_columns.better VARCHAR
generation_columns.low DOUBLE
generation_columns.high DOUBLE
generation_ends.run_id VARCHAR
generation_ends.item INTEGER
generation_ends.side INTEGER
generation_ends.form VARCHAR
generation_ends.ended VARCHAR
generation_ends.tokens BIGINT
generation_ends.seconds DOUBLE
generation_ends.tokens_per_s DOUBLE
generation_ends.first_token_s DOUBLE
generation_ends.mlp_density DOUBLE
generation_ends.model_density DOUBLE
generation_ends.loop VARCHAR
generation_ends.counted JSON
generation_scores.run_id VARCHAR
generation_scores.item INTEGER
generation_scores.side INTEGER
generation_scores.form VARCHAR
generation_scores.place INTEGER
generation_scores.dense_logprob DOUBLE
generation_scores.kl DOUBLE
generation_scores.dense_rank BIGINT
generation_scores.top JSON
generation_sides.run_id VARCHAR
generation_sides.item INTEGER
generation_sides.side INTEGER
generation_sides.policy VARCHAR
generation_sides.policy_version BIGINT
generation_sides.settings JSON
generation_sides.how VARCHAR
generation_sides.execution VARCHAR
generation_sides.no_text VARCHAR
generation_tokens.run_id VARCHAR
generation_tokens.item INTEGER
generation_tokens.side INTEGER
generation_tokens.form VARCHAR
generation_tokens.place INTEGER
generation_tokens.token_id BIGINT
generation_tokens.token_text VARCHAR
generation_tokens.logprob DOUBLE
generation_tokens.seconds DOUBLE
generation_tokens.top JSON
generation_tokens.own JSON
generation_tokens.layers JSON
generations.run_id VARCHAR
generations.item INTEGER
generations.at TIMESTAMP
generations.model VARCHAR
generations.model_sha256 VARCHAR
generations.prompt VARCHAR
generations.read_as VARCHAR
generations.prompt_tokens BIGINT
imports.hash VARCHAR
imports.name VARCHAR
imports.source VARCHAR
ingest_state.run_id VARCHAR
ingest_state.byte_offset BIGINT
ingest_state.lines BIGINT
ingest_state.tail VARCHAR
latest.cell_id VARCHAR
latest.run_id VARCHAR
latest.at TIMESTAMP
latest.seconds DOUBLE
measurements.cell_id VARCHAR
measurements.run_id VARCHAR
measurements.metric VARCHAR
measurements.value DOUBLE
measurements.stderr DOUBLE
measurements.n BIGINT
measurements.unit VARCHAR
measurements.how VARCHAR
results.cell_id VARCHAR
results.run_id VARCHAR
results.at TIMESTAMP
results.seconds DOUBLE
runs.run_id VARCHAR
runs.name VARCHAR
runs.kind VARCHAR
runs.spec JSON
runs.status VARCHAR
runs.created_at TIMESTAMP
runs.started_at TIMESTAMP
runs.finished_at TIMESTAMP
runs.provenance JSON
runs.message VARCHAR
runs.planned JSON
runs.source VARCHAR
runs.bundle VARCHAR
schema_version.version INTEGER
wide.cell_id VARCHAR
wide.run_id VARCHAR
wide.model VARCHAR
wide.model_sha256 VARCHAR
wide.policy VARCHAR
wide.policy_version BIGINT
wide.settings JSON
wide.text VARCHAR
wide.text_sha256 VARCHAR
wide.evaluation JSON
wide.tokens BIGINT
wide.window BIGINT
wide.stride BIGINT
wide.dtype VARCHAR
wide.perplexity DOUBLE
wide.nll DOUBLE
wide.delta_nll DOUBLE
wide.kl DOUBLE
wide.agreement DOUBLE
wide.accuracy DOUBLE
wide.bleu DOUBLE
wide.rouge_l DOUBLE
wide.token_agreement DOUBLE
wide.mlp_density DOUBLE
wide.model_density DOUBLE
wide.bytes_per_token DOUBLE
wide.ms_per_token_median DOUBLE
wide.ms_per_token_p10 DOUBLE
wide.ms_per_token_p90 DOUBLE
wide.tokens_per_s DOUBLE
wide.dense_ms_per_token_median DOUBLE
wide.speedup DOUBLE
wide.mlp_ms DOUBLE
wide.attention_ms DOUBLE
wide.head_ms DOUBLE
wide.overhead_ms DOUBLE
wide.mlp_ratio DOUBLE
wide.read_bytes_per_s DOUBLE
wide.bandwidth_bytes_per_s DOUBLE
wide.bandwidth_share DOUBLE
wide.perplexity_stderr DOUBLE
wide.nll_stderr DOUBLE
wide.delta_nll_stderr DOUBLE
wide.kl_stderr DOUBLE
wide.agreement_stderr DOUBLE
wide.accuracy_stderr DOUBLE
wide.bleu_stderr DOUBLE
wide.rouge_l_stderr DOUBLE
wide.token_agreement_stderr DOUBLE
wide.scored_tokens BIGINT
wide.how VARCHAR
wide.seconds DOUBLE
wide.at TIMESTAMP
windows.cell_id VARCHAR
windows.run_id VARCHAR
windows.metric VARCHAR
windows.window_index INTEGER
windows.value DOUBLE
"""
KEYS = """
cells cell_id
imports hash
ingest_state run_id
measurements cell_id run_id metric
results cell_id run_id
runs run_id
"""


def test_whole_schema(store: Store) -> None:
    columns = store.rows(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
        "ORDER BY 1, column_index"
    )
    assert [f"{table}.{name} {kind}" for table, name, kind in columns] == SCHEMA.strip().splitlines()
    keys = store.rows(
        "SELECT table_name, constraint_column_names FROM duckdb_constraints() "
        "WHERE constraint_type = 'PRIMARY KEY' ORDER BY 1"
    )
    assert [" ".join([table, *names]) for table, names in keys] == KEYS.strip().splitlines()
    assert store.rows("SELECT version FROM schema_version") == [(len(MIGRATIONS),)]


def test_older_schema_is_brought_up_to_date(home: Home) -> None:
    with duckdb.connect(str(home.database)) as old:
        old.execute("CREATE TABLE schema_version AS SELECT 1::INTEGER AS version")
        MIGRATIONS[0](old)
    with Store.open(home) as store:
        assert store.rows("SELECT count(*) FROM wide") == [(0,)]
        assert store.rows("SELECT version FROM schema_version") == [(len(MIGRATIONS),)]


def test_database_of_a_newer_program_is_refused_and_left_alone(home: Home) -> None:
    Store.open(home).close()
    with duckdb.connect(str(home.database)) as newer:
        newer.execute("UPDATE schema_version SET version = 99")
    before = home.database.read_bytes()
    with pytest.raises(UserError, match="newer version of Sparsity Lens") as refused:
        Store.open(home)
    assert "99" in str(refused.value)
    assert [path.name for path in home.root.iterdir() if path.is_file()] == ["results.duckdb"]
    assert home.database.read_bytes() == before
