"""Writes a table as Markdown and as CSV."""

from __future__ import annotations

import re

import pandas as pd

from backend.figures.tables.record import Cell, Rank, Table, TableColumn

_ARROWS = {"lower": " ↓", "higher": " ↑"}


def to_markdown(table: Table) -> bytes:
    """Return the table as Markdown: best in bold, second underlined, ± one standard error."""
    heads = [_escape(table.head), *(_escape(_head(column)) for column in table.columns)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * len(table.columns)}"]
    for row, ranks in zip(table.rows, table.ranks(), strict=True):
        cells = [
            _cell(column, cell, rank)
            for column, cell, rank in zip(table.columns, row.cells, ranks, strict=True)
        ]
        lines.append(f"| {' | '.join([_escape(row.label), *cells])} |")
    return ("\n".join(lines) + "\n").encode()


def to_csv(table: Table) -> bytes:
    """Return the table as CSV with all digits: a column for each value, one for its standard error if any."""
    columns: list[tuple[str, list[str | float | None]]] = [(table.head, [row.label for row in table.rows])]
    for place, column in enumerate(table.columns):
        name = f"{column.label} ({column.unit})" if column.unit else column.label
        columns.append((name, [row.cells[place].value for row in table.rows]))
        errors = [row.cells[place].stderr for row in table.rows]
        if any(error is not None for error in errors):
            columns.append((f"{name}, standard error", [*errors]))
    frame = pd.DataFrame({i: values for i, (_, values) in enumerate(columns)})
    header = [name for name, _ in columns]
    return frame.to_csv(index=False, header=header, lineterminator="\n").encode()


def _head(column: TableColumn) -> str:
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.label}{unit}{_ARROWS.get(column.better or '', '')}"


def _cell(column: TableColumn, cell: Cell, rank: Rank) -> str:
    if cell.value is None:
        return "–"
    value = column.show(cell.value).replace("-", "−")
    if rank is Rank.BEST:
        value = f"**{value}**"
    elif rank is Rank.SECOND:
        value = f"<u>{value}</u>"
    return value if cell.stderr is None else f"{value} ± {column.show(cell.stderr)}"


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))
