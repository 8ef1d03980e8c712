"""Saved figures of a home: ``figures/<id>.json``, named by their content, so that a URL reopens one."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from backend.errors import UserError
from backend.figures.paper.figure import PaperFigure
from backend.home import Home

_ID = re.compile(r"[0-9a-f]{16}")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class SavedFigure:
    """One saved figure.

    Attributes:
        id: Its id.
        title: What it is.
        panels: How many panels it has.
        saved_at: When it was saved last, UTC.
    """

    id: str
    title: str
    panels: int
    saved_at: datetime


def save(home: Home, figure: PaperFigure) -> str:
    """Save a figure and return its id; the same figure has the same id and is there once.

    Raises:
        UserError: The disk is full, or the home cannot be written.
    """
    path = home.figures / f"{figure.id}.json"
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        home.figures.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(figure.to_json())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise UserError(
                f"The disk is full: the figure was not saved to {home.figures}; free some room and try again."
            ) from error
        raise UserError(f"The figure cannot be saved to {home.figures} ({error.strerror}).") from error
    return figure.id


def load(home: Home, id: str) -> PaperFigure:
    """Return a saved figure.

    Raises:
        UserError: There is none of that id, or its file is broken.
    """
    path = home.figures / f"{id}.json"
    if not _ID.fullmatch(id) or not path.is_file():
        raise UserError(f"No figure is saved as '{id}'; it may have been saved in another home.")
    return PaperFigure.from_json(path.read_bytes())


def saved(home: Home) -> list[SavedFigure]:
    """Return the saved figures, the newest first; a broken file is passed over."""
    found = []
    for path in home.figures.glob("*.json"):
        try:
            figure, changed = PaperFigure.from_json(path.read_bytes()), path.stat().st_mtime
        except (UserError, OSError):
            continue
        if _ID.fullmatch(path.stem):
            at = datetime.fromtimestamp(changed, UTC)
            found.append(SavedFigure(path.stem, figure.title, len(figure.panels), at))
    return sorted(found, key=lambda each: (each.saved_at, each.id), reverse=True)


def remove(home: Home, id: str) -> None:
    """Delete a saved figure; one that is not there is no error."""
    if _ID.fullmatch(id):
        (home.figures / f"{id}.json").unlink(missing_ok=True)
