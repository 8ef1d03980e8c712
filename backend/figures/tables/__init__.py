"""Tables for papers: one record, written as LaTeX, Markdown and CSV."""

from backend.figures.tables.from_figure import table_of
from backend.figures.tables.latex import latex_escape, to_latex
from backend.figures.tables.plain import to_csv, to_markdown
from backend.figures.tables.record import Cell, Rank, Row, Table, TableColumn

__all__ = [
    "Cell",
    "Rank",
    "Row",
    "Table",
    "TableColumn",
    "latex_escape",
    "table_of",
    "to_csv",
    "to_latex",
    "to_markdown",
]
