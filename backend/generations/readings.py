"""A reading: one column of one token."""

from __future__ import annotations

from dataclasses import dataclass

from backend.generations.columns import TokenColumn


@dataclass(frozen=True)
class Reading:
    """One column of one token.

    Attributes:
        column: What it is.
        value: The token's.
        layers: One value a layer with an MLP; empty if it has no layers.
    """

    column: TokenColumn
    value: float
    layers: tuple[float, ...] = ()
