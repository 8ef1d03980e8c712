"""A reading: one column of one token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.generations.columns import TokenColumn


@dataclass(frozen=True)
class Reading:
    """One column of one token.

    Attributes:
        column: What it is.
        value: The token's.
        layers: One value a layer with an MLP; empty if it has no layers.
        entries: Which experts were counted, one tuple a layer; empty if it counts none.
    """

    column: TokenColumn
    value: float
    layers: tuple[float, ...] = ()
    entries: tuple[tuple[int, ...], ...] = ()

    def by_layer(self, digits: int) -> dict[str, list[Any]]:
        """Return what is stored of the layers, under this column's name and :func:`entries_key`'s."""
        found: dict[str, list[Any]] = {}
        if self.layers:
            found[self.column.name] = [float(f"{value:.{digits}g}") for value in self.layers]
        if self.entries:
            found[entries_key(self.column.name)] = [list(each) for each in self.entries]
        return found


def entries_key(column: str) -> str:
    """Return the name under which a token's entries by layer are stored beside a column's values."""
    return f"{column}.entries"
