"""The store: one DuckDB file a home, owned by one process, made from the run folders, imports and seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, RLock
from types import TracebackType
from typing import Any, Self

import duckdb
import pandas as pd

from backend import home as places
from backend.home import Home
from backend.results.bundles import take_bundles
from backend.results.connection import connect, is_fatal, user_error
from backend.results.ingest import mark_interrupted, run_folders, take_batch
from backend.results.migrations import migrate
from backend.results.run_state import abandoned


@dataclass
class _Turn:
    """What the stores of one database in this process share: whose turn it is, and how often it changed."""

    lock: Any = field(default_factory=RLock)
    version: int = 0


_TURNS: dict[Path, _Turn] = {}
_TURNS_LOCK = Lock()


class Store:
    """Results of one home. Make it with :meth:`open` or :meth:`in_memory`; threads may share it.

    Attributes:
        home: Whose results these are.
        notices: Sentences the person should see: a database moved aside, a line that could not be read.
    """

    def __init__(self, home: Home, path: Path | None, turn: _Turn) -> None:
        self.home = home
        self.notices: list[str] = []
        self._path = path
        self._turn = turn
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._closed = False
        try:
            with self._cursor():
                pass  # the first use opens the database
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, home: Home) -> Store:
        """Open the home's database and own it until :meth:`close`.

        Raises:
            StoreBusy: Another process owns it; :meth:`in_memory` then gives the same content.
            UserError: A newer program made it, or the disk is full or cannot be written.
        """
        with _TURNS_LOCK:
            turn = _TURNS.setdefault(home.database, _Turn())
        return cls(home, home.database, turn)

    @classmethod
    def in_memory(cls, home: Home) -> Store:
        """Make the same content in memory, from the seed, imports and run folders as they are now."""
        store = cls(home, None, _Turn())
        store.ingest()
        return store

    @property
    def version(self) -> int:
        """A number that grows whenever the content changed; for caches."""
        return self._turn.version

    def ingest(self) -> int:
        """Take what is new in the run folders and imports.

        Returns:
            The number of events taken.

        Raises:
            UserError: The disk is full; nothing is lost, and the next call goes on where this one stopped.
        """
        folders = run_folders(self.home.runs)
        events, changed = self._ingest_all(folders)
        with self.transaction() as cursor:
            changed |= take_bundles(cursor, self.home, None, self.notices)
            gone = abandoned(cursor)
        if gone:
            # A process may have written its last events and ended just after they were read: look again.
            more, _ = self._ingest_all([folder for folder in folders if folder.name in gone])
            with self.transaction() as cursor:
                changed |= mark_interrupted(cursor, gone) > 0
            events += more
        if events or changed:
            self._turn.version += 1
        return events

    def frame(self, query: str, parameters: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """Return the result of a query.

        Args:
            query: SQL with ``$name`` for each parameter.
            parameters: Their values.
        """
        with self._cursor() as cursor:
            frame: pd.DataFrame = cursor.execute(query, dict(parameters or {})).df()
            return frame

    def rows(self, query: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Return the result of a query as tuples of Python values; as :meth:`frame` otherwise."""
        with self._cursor() as cursor:
            rows: list[tuple[Any, ...]] = cursor.execute(query, dict(parameters or {})).fetchall()
            return rows

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor in a transaction: all of what is done with it is kept, or on an error nothing."""
        with self._cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                with suppress(duckdb.Error):  # a failed COMMIT has rolled back already
                    cursor.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Give the database free; closing twice does nothing."""
        with self._turn.lock:
            self._closed = True
            self._disconnect()

    def __enter__(self) -> Self:
        """Return the store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def _ingest_all(self, folders: list[Path]) -> tuple[int, bool]:
        """Take batch after batch until nothing is new; return the events and whether anything changed."""
        events, changed = 0, False
        while True:
            with self.transaction() as cursor:
                batch = take_batch(cursor, folders)
            self.notices += batch.notices
            events, changed = events + batch.events, changed or batch.read > 0
            if not batch.read:
                return events, changed

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Give a cursor, one thread at a time; a failure that a person can act on becomes a sentence."""
        with self._turn.lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                with self._connection.cursor() as cursor:
                    yield cursor
            except duckdb.Error as error:
                if is_fatal(error):
                    self._disconnect()
                sentence = user_error(error)
                if sentence is None:
                    raise
                raise sentence from error

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open the database, at first and after a fatal error, and take the seed into it."""
        if self._closed:
            raise RuntimeError("the store is closed")
        notices: list[str] = []
        if self._path is None:
            connection = duckdb.connect(":memory:")
            migrate(connection)
        else:
            connection, notices = connect(self._path)
        try:
            connection.execute("BEGIN")
            take_bundles(connection, self.home, places.SEED, notices)
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self.notices += notices
        self._turn.version += 1
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
