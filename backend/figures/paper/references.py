"""The papers to cite: of each method that a figure shows, and no others."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from backend.figures.paper.figure import PaperFigure
from backend.figures.paper.layout import to_page

_FILE = Path(__file__).with_name("references.bib")
_ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def methods_of(figure: PaperFigure) -> list[str]:
    """Return the names of the registered methods that a figure shows, in their order of appearance.

    A series says its method in its name ("dip_ca[gamma=0.3]"); a figure whose series do not, as a heat map,
    says its methods in its provenance.
    """
    from backend.methods import every_method

    named: dict[str, None] = {}
    for panel in to_page(figure).panels:
        found = [re.split(r"[\[ ]", series.name)[0] for series in panel.spec.series]
        named |= dict.fromkeys([*found, *panel.spec.provenance.methods])
    return [name for name in named if name in every_method()]


def papers_of(method: str) -> list[str]:
    """Return the arXiv numbers of a registered method's papers."""
    from backend.methods import every_method

    return _ARXIV.findall(every_method()[method].paper)


@cache
def entries() -> dict[str, str]:
    """Return every BibTeX entry by its arXiv number."""
    texts = re.split(r"\n(?=@)", _FILE.read_text(encoding="utf-8"))
    found = {}
    for text in texts:
        number = re.search(r"eprint = \{([\d.]+)\}", text)
        assert number is not None, text
        found[number[1]] = text.strip()
    return found


def to_bibtex(figure: PaperFigure) -> bytes:
    """Return ``refs.bib``: the papers of the methods that a figure shows, each once."""
    numbers = dict.fromkeys(number for method in methods_of(figure) for number in papers_of(method))
    known = [entries()[number] for number in numbers if number in entries()]
    return ("\n\n".join(known) + "\n").encode() if known else b""
