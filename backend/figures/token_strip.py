"""Token strips as records: a text whose tokens are coloured by a value each."""

from __future__ import annotations

from typing import Self

import pandas as pd
from pydantic import model_validator

from backend.figures.heat_map import ColourScale
from backend.figures.record import Record


class TokenStrip(Record):
    """A text, token by token.

    Attributes:
        tokens: The tokens in order, with their spaces and line breaks.
        values: One for each token; None where there is none (it stays without colour).
        scale: How values become colours.
    """

    tokens: tuple[str, ...]
    values: tuple[float | None, ...]
    scale: ColourScale

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        if len(self.values) != len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens have {len(self.values)} values")
        return self

    def frame(self) -> pd.DataFrame:
        """Return the tokens, one a row: row (its place, from 0), column (its text), value."""
        rows = {
            "row": [str(place) for place in range(len(self.tokens))],
            "column": list(self.tokens),
            "value": list(self.values),
        }
        return pd.DataFrame(rows, columns=["row", "column", "value"]).astype({"value": "float64"})
