"""Every file that is made of a figure for paper."""

from __future__ import annotations

from collections.abc import Callable

from backend.errors import UserError
from backend.figures.drawing import page as drawing
from backend.figures.drawing.page import Format
from backend.figures.page import Page
from backend.figures.paper import data
from backend.figures.paper.figure import PaperFigure
from backend.figures.paper.layout import to_page, with_settings
from backend.figures.pgfplots import to_pgfplots
from backend.figures.tables import Table, table_of, to_csv, to_latex, to_markdown


def drawn(figure: PaperFigure, format: Format) -> bytes:
    """Return the figure as PDF, SVG or PNG.

    Raises:
        UserError: Its panels have no room.
    """
    return draw_page(to_page(figure), format)


def draw_page(page: Page, format: Format) -> bytes:
    """Return a page as PDF, SVG or PNG; errors as for :func:`drawn`."""
    try:
        return drawing.to_bytes(page, format)
    except UserWarning as error:
        raise UserError(
            f"The panels have no room on {page.width_in:g} × {page.height_in:g} inches; make the figure "
            "higher or wider, put fewer panels in a row, or leave out the legend."
        ) from error


def interactive(figure: PaperFigure) -> bytes:
    """Return the figure as one HTML file that needs nothing from the network (about 5 MB)."""
    from backend.figures.plotly_page import page_to_html  # Plotly takes long to import

    return page_to_html(to_page(figure), figure.title)


def tables(figure: PaperFigure) -> list[Table]:
    """Return the figure's table, or one for each panel."""
    if figure.table is not None:
        return [figure.table]
    return [table_of(with_settings(panel.spec, figure.settings)) for panel in figure.panels]


def table_files(figure: PaperFigure) -> dict[str, bytes]:
    """Return the figure's tables as LaTeX (plain and with siunitx), Markdown and CSV, by file name."""
    writers: dict[str, Callable[[Table], bytes]] = {
        "table.tex": to_latex,
        "table-siunitx.tex": lambda table: to_latex(table, siunitx=True),
        "table.md": to_markdown,
        "table.csv": to_csv,
    }
    made = tables(figure)
    return {name: b"\n".join(write(table) for table in made) for name, write in writers.items()}


def all_files(figure: PaperFigure) -> dict[str, bytes]:
    """Return what the command line writes and the bundle holds, by file name; without the HTML.

    Raises:
        UserError: Its panels have no room.
    """
    page, stem = to_page(figure), figure.stem
    frame = data.data_frame(page)
    formats: tuple[Format, ...] = ("pdf", "svg", "png")
    return {
        **{f"{stem}.{format}": draw_page(page, format) for format in formats},
        **{f"pgfplots/{name}": content for name, content in to_pgfplots(page, stem).items()},
        **table_files(figure),
        "data.csv": data.to_csv(frame),
        "data.parquet": data.to_parquet(frame),
        "figure.json": figure.to_json(),
        "page.json": data.page_json(page, stem),
    }
