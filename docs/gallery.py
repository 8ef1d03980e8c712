"""Draws the README's gallery: every recipe in docs/gallery/ from the seed results, as a small PNG beside it.

Run by ``make gallery``; the drawing is that of ``python -m backend figure``.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from backend.figures.paper import to_page  # noqa: E402
from backend.figures.paper.files import draw_page  # noqa: E402
from backend.figures.recipes import Stored, load_figure  # noqa: E402
from backend.home import Home  # noqa: E402
from backend.results import Store  # noqa: E402

FOLDER = ROOT / "docs" / "gallery"
DPI = 160


def drawn(recipe: Path, stored: Stored) -> bytes:
    """Return a recipe's figure as a PNG for the README."""
    page = to_page(load_figure(recipe, stored)).model_copy(update={"dpi": DPI})
    return draw_page(page, "png")


def main() -> None:
    """Draw every recipe from a fresh home, which holds the seed alone."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home.resolve(folder)
        with Store.open(home) as store:
            stored = Stored(store, home)
            for recipe in sorted(FOLDER.glob("*.yaml")):
                png = drawn(recipe, stored)
                recipe.with_suffix(".png").write_bytes(png)
                print(f"{recipe.stem}.png: {len(png) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
