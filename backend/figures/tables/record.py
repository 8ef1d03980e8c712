"""A table as a record: values with standard errors, apart from how they are written."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from pydantic import Field, model_validator

from backend.figures.heat_map import Better
from backend.figures.record import Record


class Rank(IntEnum):
    """Place of a value in its column."""

    BEST = 1
    SECOND = 2
    OTHER = 3


class Cell(Record):
    """One value.

    Attributes:
        value: The number; None where there is none.
        stderr: One standard error, None where there is none.
    """

    value: float | None = None
    stderr: float | None = None


class TableColumn(Record):
    """A column's head and how its numbers are written.

    Attributes:
        label: What it holds.
        unit: Its unit, "" for none.
        better: Which direction is better; None ranks nothing.
        digits: Digits after the point.
    """

    label: str
    unit: str = ""
    better: Better | None = None
    digits: int = Field(default=3, ge=0, le=8)

    def show(self, number: float) -> str:
        """Return a number of this column as text, with an ASCII minus."""
        return f"{number:.{self.digits}f}"


class Row(Record):
    """One row.

    Attributes:
        label: Its name.
        cells: One for each column.
        ranked: Takes part in best and second best; not a baseline or an oracle.
    """

    label: str
    cells: tuple[Cell, ...]
    ranked: bool = True


class Table(Record):
    """A table.

    Attributes:
        title: What it is; its caption.
        head: What its rows are ("Method").
        columns: The columns beside the rows' names.
        rows: The rows.
        note: What a reader has to know.
    """

    title: str
    head: str
    columns: tuple[TableColumn, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"the row {row.label!r} has {len(row.cells)} cells, not {len(self.columns)}")
        return self

    def ranks(self) -> list[list[Rank]]:
        """Return each cell's rank, row by row; values that are written alike share a rank."""
        ranks = [[Rank.OTHER] * len(self.columns) for _ in self.rows]
        for place, column in enumerate(self.columns):
            if column.better is None:
                continue
            shown = {
                index: float(column.show(value))
                for index, row in enumerate(self.rows)
                if row.ranked and (value := row.cells[place].value) is not None
            }
            order = sorted(set(shown.values()), reverse=column.better == "higher")
            if len(shown) < 2:
                continue
            for index, value in shown.items():
                ranks[index][place] = Rank(min(order.index(value) + 1, Rank.OTHER))
        return ranks
