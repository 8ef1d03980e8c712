"""Opening the DuckDB file: who else has it open, whether it can be read, and what its errors mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from backend.errors import UserError
from backend.results.migrations import migrate

_ENVIRONMENT = ("Permission denied", "Read-only file system", "Input/output error")
_NO_ROOM = ("No space left", "Disk quota", "Out of Memory", "failed to offload", "max_temp_directory_size")


class StoreBusy(UserError):  # noqa: N818 - a state of the home, not a fault
    """Another process has the home's results open; ``pid`` is its process id where DuckDB tells it."""

    def __init__(self, path: Path, pid: int | None) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            f"The results in {path.parent} are open in {who}; use that app, end it, "
            "or name another home with --home."
        )


def connect(path: Path) -> tuple[duckdb.DuckDBPyConnection, list[str]]:
    """Open the database at ``path``, made if absent, with the schema of this program.

    A file that cannot be read is moved aside, never deleted: everything in it can be made again.

    Returns:
        The connection, and sentences on what the person should know (a file that was moved aside).

    Raises:
        StoreBusy: Another process has it open.
        UserError: It was made by a newer program, or the disk is full or cannot be written.
    """
    try:
        return _open(path), []
    except duckdb.Error as error:
        _raise_if_not_damaged(path, error)
    aside = _move_aside(path)
    notice = f"{path.name} was damaged; it was moved to {aside.name} and made again from the run folders."
    return _open(path), [notice]


def user_error(error: duckdb.Error) -> UserError | None:
    """Return what a failed statement means to the person, or None if it is a defect of the program."""
    message = str(error)
    if any(sign in message for sign in _NO_ROOM):
        return UserError(
            "The results cannot be stored because the disk (or memory) is full; nothing is lost. "
            "Make room and try again."
        )
    if is_fatal(error):
        return UserError(
            "The results database was found damaged; try again: it is opened anew, and made again from "
            "the run folders if it cannot be read."
        )
    if isinstance(error, duckdb.IOException):
        return UserError(f"The results database cannot be read or written ({_first_line(message)}).")
    return None


def is_fatal(error: duckdb.Error) -> bool:
    """Tell whether the database has to be opened anew: DuckDB refuses everything after such an error."""
    message = str(error)
    damaged = "Corrupt" in message or "Could not read enough bytes" in message
    return damaged or isinstance(error, duckdb.FatalException)


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(str(path))
    try:
        _read_all(connection)
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _read_all(connection: duckdb.DuckDBPyConnection) -> None:
    """Read every row once: DuckDB notices a damaged block only then (50 ms for 100,000 measurements)."""
    for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
        connection.execute(f'SELECT bit_xor(hash(t)) FROM "{table}" t').fetchall()


def _raise_if_not_damaged(path: Path, error: duckdb.Error) -> None:
    """Raise what a person can act on; return if the file itself is at fault."""
    message = str(error)
    if "lock" in message and ("Conflicting" in message or "Could not set" in message):
        pid = re.search(r"PID (\d+)", message)
        raise StoreBusy(path, int(pid.group(1)) if pid else None) from error
    if "version number" in message and "we can only read" in message:
        raise UserError(
            f"The results database {path} was written by another version of DuckDB ({_first_line(message)}); "
            "update the program or name another home with --home."
        ) from error
    if any(sign in message for sign in (*_ENVIRONMENT, *_NO_ROOM)) or path.is_dir():
        raise UserError(
            f"The results database {path} cannot be opened ({_first_line(message)}); "
            "make it writable, make room, or name another home with --home."
        ) from error


def _move_aside(path: Path) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("", ".wal"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def _first_line(message: str) -> str:
    return message.splitlines()[0].rstrip(".")
