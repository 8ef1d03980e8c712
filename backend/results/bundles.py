"""Bundles: runs as small Parquet files, to be committed as seed or handed to somebody else.

A bundle is a folder with ``runs.parquet``, ``cells.parquet``, ``results.parquet``, ``measurements.parquet``
and ``windows.parquet``, and one more for each table of generated texts if it holds any; its name in the
store is the hash of their content. Imported bundles are copied to ``imports/`` in the home, so that the
database can always be made again.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from backend.errors import UserError
from backend.home import Home
from backend.results.generated_rows import GENERATION_SCHEMAS
from backend.results.rows import SCHEMAS, insert_arrow
from backend.results.run_state import forget

if TYPE_CHECKING:
    from backend.results.store import Store

TABLES = ("runs", "cells", "results", "measurements", "windows")
GENERATED = tuple(GENERATION_SCHEMAS)
"""Tables of generated texts: files of bundles that hold some."""
_UNFINISHED = ("queued", "running", "paused")


def export_run(store: Store, run_id: str, folder: Path) -> None:
    """Write a run as a bundle; the same run gives the same bytes.

    Args:
        store: Where the run is.
        run_id: Its id.
        folder: The bundle's folder, made if absent; a bundle in it is replaced.

    Raises:
        UserError: There is no such run, it has not ended, or the folder cannot be written.
    """
    with store.transaction() as cursor:
        found = cursor.execute("SELECT status FROM runs WHERE run_id = $run", {"run": run_id}).fetchall()
        if not found:
            raise UserError(f"There is no run '{run_id}' in the results; `results` lists what there is.")
        if found[0][0] in _UNFINISHED:
            raise UserError(f"The run '{run_id}' is {found[0][0]}; export it when it has ended.")
        tables = {table: _rows_of(cursor, table, run_id) for table in (*TABLES, *GENERATED)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for table, rows in tables.items():
            if table in GENERATED and not tables["generations"].num_rows:
                (folder / f"{table}.parquet").unlink(missing_ok=True)
                continue
            pq.write_table(rows, folder / f"{table}.parquet", compression="zstd")
    except OSError as error:
        raise UserError(f"The bundle cannot be written to {folder} ({error.strerror}).") from error


def import_bundle(store: Store, folder: Path) -> list[str]:
    """Take a bundle's runs into the store, once; a run that this home made itself is kept as it is.

    Args:
        store: Where to.
        folder: The bundle's folder.

    Returns:
        The ids of the runs in the bundle.

    Raises:
        UserError: The folder holds no bundle that can be read.
    """
    tables = _read(folder)
    digest = content_hash(folder)
    kept = store.home.imports / digest
    if not kept.exists():
        partial = kept.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            for table in tables_in(folder):
                shutil.copyfile(folder / f"{table}.parquet", partial / f"{table}.parquet")
            partial.rename(kept)
        except OSError as error:
            raise UserError(f"The bundle cannot be copied to {kept.parent} ({error.strerror}).") from error
    store.ingest()
    return [str(run_id) for run_id in tables["runs"].column("run_id").to_pylist()]


def content_hash(folder: Path) -> str:
    """Return the hash that names a bundle: 16 hex digits of the sha256 over its files."""
    digest = hashlib.sha256()
    for table in tables_in(folder):
        digest.update(hashlib.sha256((folder / f"{table}.parquet").read_bytes()).digest())
    return digest.hexdigest()[:16]


def tables_in(folder: Path) -> list[str]:
    """Return the tables that a bundle has files of, those of generated texts only where there are some."""
    return [*TABLES, *(table for table in GENERATED if (folder / f"{table}.parquet").is_file())]


def take_bundles(
    cursor: duckdb.DuckDBPyConnection, home: Home, seed: Path | None, notices: list[str]
) -> bool:
    """Load the bundles of the seed and of the home's imports that are not in the database yet.

    Args:
        cursor: A cursor inside a transaction.
        home: Whose imports to look at.
        seed: The seed's folder; None leaves the seed as it is, else a bundle no longer in it is forgotten.
        notices: Gets a sentence for each bundle that cannot be read.

    Returns:
        Whether anything changed.
    """
    known = dict(cursor.execute("SELECT hash, source FROM imports").fetchall())
    changed = False
    if seed is not None:
        present = {content_hash(folder): folder for folder in _bundles(seed)}
        for digest in [
            digest for digest, source in known.items() if source == "seed" and digest not in present
        ]:
            _drop(cursor, digest)
            changed = True
        for digest, folder in present.items():
            if digest not in known:
                changed |= _load(cursor, folder, digest, "seed", notices)
    for folder in _bundles(home.imports):
        if folder.name not in known and folder.suffix != ".partial":
            changed |= _load(cursor, folder, folder.name, "import", notices)
    return changed


def _load(
    cursor: duckdb.DuckDBPyConnection, folder: Path, digest: str, source: str, notices: list[str]
) -> bool:
    try:
        tables = _read(folder)
    except UserError as error:
        if str(error) not in notices:
            notices.append(str(error))
        return False
    for run_id in tables["runs"].column("run_id").to_pylist():
        found = cursor.execute("SELECT source FROM runs WHERE run_id = $run", {"run": run_id}).fetchall()
        if found and found[0][0] != "local":
            forget(cursor, run_id)
        elif found:
            tables = {name: _without(rows, run_id) for name, rows in tables.items()}
    runs = tables["runs"]
    for name, value in (("source", source), ("bundle", digest)):
        position = runs.schema.get_field_index(name)
        runs = runs.set_column(position, name, pa.array([value] * len(runs), pa.string()))
    for table, rows in {**tables, "runs": runs}.items():
        insert_arrow(cursor, table, rows)
    cursor.execute(
        "INSERT INTO imports VALUES ($hash, $name, $source)",
        {"hash": digest, "name": folder.name, "source": source},
    )
    return True


def _drop(cursor: duckdb.DuckDBPyConnection, digest: str) -> None:
    runs = cursor.execute("SELECT run_id FROM runs WHERE bundle = $hash", {"hash": digest}).fetchall()
    for (run_id,) in runs:
        forget(cursor, run_id)
    cursor.execute("DELETE FROM imports WHERE hash = $hash", {"hash": digest})


def _without(rows: pa.Table, run_id: str) -> pa.Table:
    if "run_id" not in rows.schema.names:
        return rows
    return rows.filter(pa.compute.not_equal(rows.column("run_id"), run_id))


def _rows_of(cursor: duckdb.DuckDBPyConnection, table: str, run_id: str) -> pa.Table:
    schema = SCHEMAS[table]
    columns = ", ".join(f'"{name}"' for name in schema.names)
    where = (
        "cell_id IN (SELECT cell_id FROM results WHERE run_id = $run)"
        if table == "cells"
        else "run_id = $run"
    )
    ordered = ("cell_id", "metric", "window_index", "item", "side", "form", "place", "name")
    keys = ", ".join(name for name in ordered if name in schema.names and table != "runs") or "run_id"
    query = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {keys}"
    return cursor.sql(query, params={"run": run_id}).to_arrow_table().cast(schema)


def _read(folder: Path) -> dict[str, pa.Table]:
    try:
        tables = {
            table: pq.read_table(folder / f"{table}.parquet", partitioning=None)
            for table in tables_in(folder)
        }
        return {
            table: rows.select(SCHEMAS[table].names).cast(SCHEMAS[table]) for table, rows in tables.items()
        }
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(
            f"The folder {folder} holds no bundle of results that can be read "
            f"(expected: {', '.join(f'{table}.parquet' for table in TABLES)})."
        ) from error


def _bundles(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if all((f / f"{table}.parquet").is_file() for table in TABLES))
