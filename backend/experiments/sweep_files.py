"""The sweep files that come with the program, with what each says of itself in its first lines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from backend.experiments.sweep import Sweep
from backend.home import REPOSITORY

FOLDER = REPOSITORY / "data" / "sweeps"


@dataclass(frozen=True)
class SweepFile:
    """One sweep file.

    Attributes:
        path: Where it lies.
        sweep: What it asks for.
        says: What it is for and how long it takes: its leading comment, without the command.
    """

    path: Path
    sweep: Sweep
    says: str

    @property
    def command(self) -> str:
        """The command that runs it."""
        return f"python -m backend sweep {self.path.relative_to(REPOSITORY)}"


@lru_cache(maxsize=8)
def sweep_files(prefix: str) -> tuple[SweepFile, ...]:
    """Return the sweep files whose names begin with ``prefix``, by name.

    Raises:
        UserError: One of them is no sweep.
    """
    found = sorted(FOLDER.glob(f"{prefix}*.yaml"))
    return tuple(SweepFile(path, Sweep.from_yaml(path), _says(path)) for path in found)


def _says(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line.lstrip("# ") for line in lines if line.startswith("# ") and "python -m" not in line]
    return " ".join(comment).rstrip(":") + "."
