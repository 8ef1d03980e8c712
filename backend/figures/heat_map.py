"""Heat maps as records: values over rows and columns, and the colour scale that shows them."""

from __future__ import annotations

from typing import Literal, Self

import pandas as pd
from pydantic import model_validator

from backend.figures.drawing.text import titled
from backend.figures.record import Record

Better = Literal["higher", "lower"]


class ColourScale(Record):
    """How values become colours, and what the colour bar says.

    Attributes:
        label: What the colour shows ("Hit rate").
        unit: Its unit, "" for none.
        better: Which direction is better, None if neither is.
        kind: ``sequential`` (light to dark), ``diverging`` (blue below its centre, red above), or ``grey``.
        range: Values at both ends (low, high); None to fit the data.
        centre: The middle of a diverging scale without a range.
    """

    label: str
    unit: str = ""
    better: Better | None = None
    kind: Literal["sequential", "diverging", "grey"] = "sequential"
    range: tuple[float, float] | None = None
    centre: float = 0.0

    @property
    def title(self) -> str:
        """The colour bar's title, with unit and direction."""
        return titled(self.label, self.unit, self.better)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError(f"a colour scale runs from low to high, not from {self.range[0]:g}")
        return self


class HeatMap(Record):
    """Values over rows and columns.

    Attributes:
        rows: Labels of the rows, from top to bottom.
        columns: Labels of the columns, from left to right.
        values: One tuple a row, as long as ``columns``; None where there is no value.
        scale: How values become colours.
        show_values: Write each value into its cell; for maps of few cells.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    scale: ColourScale
    show_values: bool = False

    @model_validator(mode="after")
    def _rectangular(self) -> Self:
        if len(self.values) != len(self.rows):
            raise ValueError(f"values has {len(self.values)} rows, {len(self.rows)} are named")
        for row in self.values:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} values, there are {len(self.columns)} columns")
        return self

    @property
    def missing(self) -> int:
        """How many cells have no value."""
        return sum(value is None for row in self.values for value in row)

    def frame(self) -> pd.DataFrame:
        """Return the values, one row a cell: row, column, value; row by row."""
        rows = [
            {"row": name, "column": column, "value": value}
            for name, values in zip(self.rows, self.values, strict=True)
            for column, value in zip(self.columns, values, strict=True)
        ]
        return pd.DataFrame(rows, columns=["row", "column", "value"]).astype({"value": "float64"})
