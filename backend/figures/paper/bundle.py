"""The bundle: a figure with all that a submission and its readers need, as one zip."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from string import Template

import backend.figures.drawing
from backend.figures.drawing.text import SERIF, SERIF_FILES
from backend.figures.paper.figure import PaperFigure
from backend.figures.paper.files import all_files
from backend.figures.paper.layout import to_page
from backend.figures.paper.references import to_bibtex
from backend.figures.spec import How

_PINNED = ("matplotlib", "pandas", "pyarrow")
_THEN = (1980, 1, 1, 0, 0, 0)
"""The time of every file, so that the same figure gives the same zip."""
_BUNDLED = Path(__file__).with_name("bundled")


def bundle(figure: PaperFigure) -> bytes:
    """Return the bundle as a zip; the same figure gives the same bytes.

    Raises:
        UserError: Its panels have no room.
    """
    return pack(bundle_files(figure))


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return files as a zip; the same files give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _THEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def bundle_files(figure: PaperFigure) -> dict[str, bytes]:
    """Return what a bundle holds, by file name."""
    return {
        **all_files(figure),
        **_drawing_package(),
        **_fonts(),
        "reproduce.py": (_BUNDLED / "reproduce.py").read_bytes(),
        "requirements.txt": "".join(f"{name}=={metadata.version(name)}\n" for name in _PINNED).encode(),
        "refs.bib": to_bibtex(figure),
        "README.md": _readme(figure).encode(),
    }


def _drawing_package() -> dict[str, bytes]:
    folder = Path(backend.figures.drawing.__file__).parent
    return {f"drawing/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.py"))}


def _fonts() -> dict[str, bytes]:
    """Return the serif font and its licence, as Matplotlib ships them."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return {f"fonts/{name}": (folder / name).read_bytes() for name in (*SERIF_FILES, "LICENSE_STIX")}


def _readme(figure: PaperFigure) -> str:
    page = to_page(figure)
    how = sorted({how for panel in figure.panels for how in panel.spec.provenance.how})
    runs = [
        f"- `{run.run}`: commit {run.commit or 'unknown'}, {run.device or 'unknown device'}"
        for run in figure.runs
    ]
    return Template((_BUNDLED / "README.md").read_text(encoding="utf-8")).substitute(
        title=figure.title,
        notes=figure.notes or "No caption.",
        how=_how(how),
        stem=figure.stem,
        size=f"{page.width_in:g} × {page.height_in:g}",
        font=SERIF,
        runs="\n".join(["Runs:", "", *runs]) if runs else "Its runs are not known here.",
    )


def _how(how: list[How]) -> str:
    said = {
        "measured": "Measured on a model that ran.",
        "simulated": "Simulated: no device was measured.",
        "oracle": "An oracle's numbers are a bound: it looks at what it counts as skipped, or at the future.",
    }
    return " ".join(said[each] for each in how)
