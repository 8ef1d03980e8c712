"""What is taken along from Paper: the bundle, single files, and the line that builds them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import streamlit as st

from backend.figures.paper import PaperFigure, to_page
from backend.figures.paper.bundle import bundle, pack
from backend.figures.paper.files import drawn, interactive, table_files
from backend.figures.pgfplots import to_pgfplots

_TABLES = {
    "LaTeX": ("table.tex", "application/x-tex"),
    "LaTeX, siunitx": ("table-siunitx.tex", "application/x-tex"),
    "Markdown": ("table.md", "text/markdown"),
    "CSV": ("table.csv", "text/csv"),
}


def downloads(figure: PaperFigure) -> None:
    """Show the downloads; nothing is made before its button is pressed."""
    stem = figure.stem

    def picture(format: Literal["pdf", "svg", "png"]) -> Callable[[], bytes]:
        return lambda: drawn(figure, format)

    def table(name: str) -> Callable[[], bytes]:
        return lambda: table_files(figure)[name]

    with st.container(horizontal=True, vertical_alignment="center", key="paper_downloads"):
        st.download_button(
            "Bundle (zip)", lambda: bundle(figure), f"{stem}.zip", "application/zip", type="primary",
            icon=":material/folder_zip:", on_click="ignore", key="paper_bundle",
            help="Every file below but the HTML, the data, the papers to cite, and a script that redraws the "
            "figure byte for byte.",
        )  # fmt: skip
        _button("PDF", f"{stem}.pdf", "application/pdf", picture("pdf"))
        _button("SVG", f"{stem}.svg", "image/svg+xml", picture("svg"))
        _button(f"PNG, {figure.settings.dpi} dpi", f"{stem}.png", "image/png", picture("png"))
        _button(
            "PGFPlots", f"{stem}-pgfplots.zip", "application/zip",
            lambda: pack(to_pgfplots(to_page(figure), stem)), "The .tex and its CSV files, as a zip",
        )  # fmt: skip
        _button("HTML", f"{stem}.html", "text/html", lambda: interactive(figure), "Interactive, about 5 MB")
        with st.popover("Tables", icon=":material/table:", key="paper_tables"):
            for label, (name, mime) in _TABLES.items():
                _button(label, f"{stem}-{name}", mime, table(name))
        _button(
            "figure.json",
            "figure.json",
            "application/json",
            figure.to_json,
            "To import again, here or elsewhere",
        )
    st.markdown("Built again on the command line, for the Makefile of a paper:")
    st.code("python -m backend figure figure.json -o out/", language=None)


def _button(label: str, file: str, mime: str, content: Callable[[], bytes], help: str | None = None) -> None:
    st.download_button(label, content, file, mime, key=f"paper_file_{label}", on_click="ignore", help=help)
