"""Where things lie: the home folder of what is made at run time, and the data root of local texts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from backend.errors import UserError

REPOSITORY = Path(__file__).resolve().parent.parent
SEED = REPOSITORY / "data" / "seed"
MOE = REPOSITORY / "data" / "moe"


@dataclass(frozen=True)
class Home:
    """The folder that holds everything made at run time: store, runs, queue, models."""

    root: Path

    @classmethod
    def resolve(cls, given: str | Path | None = None) -> Home:
        """Return the home: ``given``, else ``SPARSITY_LENS_HOME``, else ``data/home``; made if absent.

        Raises:
            UserError: The folder cannot be made or written.
        """
        root = Path(given or os.environ.get("SPARSITY_LENS_HOME") or REPOSITORY / "data" / "home")
        home = cls(root.expanduser().resolve())
        try:
            for folder in (home.runs, home.queue, home.models):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"The home folder {home.root} cannot be used ({error.strerror}); name another with --home."
            ) from error
        return home

    @property
    def runs(self) -> Path:
        """One folder a run: what was asked, its events, its Parquet files."""
        return self.root / "runs"

    @property
    def queue(self) -> Path:
        """Jobs that wait for the worker, one JSON file each."""
        return self.root / "queue"

    @property
    def models(self) -> Path:
        """Downloaded and converted models."""
        return self.root / "models"

    @property
    def experts(self) -> Path:
        """Files of experts, which stores load from; each can be made again from its model."""
        return self.root / "experts"

    @property
    def imports(self) -> Path:
        """Bundles of other homes' runs, kept so that the database can always be made again."""
        return self.root / "imports"

    @property
    def figures(self) -> Path:
        """Saved figures for papers, one JSON file each."""
        return self.root / "figures"

    @property
    def database(self) -> Path:
        """The DuckDB file; owned by one process at a time."""
        return self.root / "results.duckdb"

    @property
    def worker_status(self) -> Path:
        """What the resident worker says of itself: pid, start time, state, heartbeat."""
        return self.root / "worker.json"


def data_root(given: str | Path | None = None) -> Path | None:
    """Return the local data root: ``given``, else ``SPARSITY_LENS_DATA``, else none.

    Raises:
        UserError: A data root was named and is no folder.
    """
    named = given or os.environ.get("SPARSITY_LENS_DATA")
    if not named:
        return None
    root = Path(named).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"The data root {root} is not a folder; check --data-root or SPARSITY_LENS_DATA.")
    return root
