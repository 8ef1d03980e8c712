"""Writes a figure's files into a folder, for a paper's Makefile."""

from __future__ import annotations

from pathlib import Path

from backend.errors import UserError
from backend.figures.paper.bundle import bundle_files, pack
from backend.figures.paper.figure import PaperFigure
from backend.figures.paper.files import interactive

_ONLY_BUNDLED = ("drawing/", "fonts/", "page.json", "reproduce.py", "requirements.txt", "README.md")


def write_figure(figure: PaperFigure, folder: Path, *, html: bool = False) -> list[str]:
    """Write every file of a figure and its bundle; a file whose content is the same is left alone.

    Args:
        figure: The figure.
        folder: Where; made if absent.
        html: The interactive HTML too.

    Returns:
        The files' names within the folder, sorted.

    Raises:
        UserError: The panels have no room, or the folder cannot be written.
    """
    bundled = bundle_files(figure)
    files = {name: content for name, content in bundled.items() if not name.startswith(_ONLY_BUNDLED)}
    files[f"{figure.stem}.zip"] = pack(bundled)
    if html:
        files[f"{figure.stem}.html"] = interactive(figure)
    try:
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            # make goes by the time of a file: one that did not change keeps it.
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)
    except OSError as error:
        raise UserError(f"The figure cannot be written to {folder} ({error.strerror}).") from error
    return sorted(files)
