"""Kinds of panels that a recipe can name, each one class that turns its settings into a figure spec."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas as pd

from backend.errors import UserError
from backend.figures.interpolation import WINDOW_METRICS, Windows
from backend.figures.spec import FigureSpec
from backend.home import Home
from backend.registry import Registry
from backend.results import Store, queries
from backend.settings import Settings, setting

_KEYS = ("model", "model_sha256", "text", "text_sha256", "tokens", "window", "stride", "dtype")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation's results.

    Attributes:
        label: Its name for people.
        points: Its points, as :func:`backend.results.queries.points` returns them.
        windows: Window values of their cells, by metric.
    """

    label: str
    points: pd.DataFrame
    windows: Windows


@dataclass
class Stored:
    """What recipes draw from: the results and recordings of one home.

    Attributes:
        store: The results.
        home: Its home, for recordings.
    """

    store: Store
    home: Home
    _evaluated: dict[tuple[Any, ...], Evaluated] = field(default_factory=dict)

    def evaluated(self, **wanted: Any) -> Evaluated:
        """Return the evaluation with most cells among those that agree with what is wanted.

        Args:
            **wanted: Values of the store's columns (model, text, tokens, window, dtype); None for any.

        Raises:
            UserError: There is none.
        """
        table = queries.evaluations(self.store)
        said = {name: value for name, value in wanted.items() if value is not None}
        for name, value in said.items():
            table = table[table[name] == value]
        if table.empty:
            asked = ", ".join(f"{name} {value}" for name, value in said.items()) or "anything"
            raise UserError(f"No results are stored for {asked}; `python -m backend results` lists what is.")
        row = table.iloc[0]
        keys = {key: getattr(row[key], "item", lambda key=key: row[key])() for key in _KEYS}
        place = tuple(keys.values())
        if place not in self._evaluated:
            points = queries.points(self.store, **keys)
            cells = list(points["cell_id"])
            windows = {m: queries.window_values(self.store, cells, m) for m in WINDOW_METRICS}
            label = f"{keys['model']}, {keys['text']}, {keys['tokens']:,} tokens"
            self._evaluated[place] = Evaluated(label, points, windows)
        return self._evaluated[place]


class PanelRecipe(Settings):
    """What a panel shows; a subclass for each kind."""

    kind: ClassVar[str]

    @abstractmethod
    def draw(self, stored: Stored) -> FigureSpec:
        """Return the panel's figure.

        Raises:
            UserError: What it needs is not stored, or a setting names what there is not.
        """


class EvaluationChoice(Settings):
    """Which evaluation's results are drawn."""

    model: str | None = setting(None, "The model's name; by default that with most results.")
    text: str | None = setting(None, "The text's name.")
    tokens: int | None = setting(None, "Tokens fed.", unit="tokens", ge=1)
    window: int | None = setting(None, "Tokens of one window.", unit="tokens", ge=1)
    dtype: str | None = setting(None, "Precision of the weights.")

    def evaluated(self, stored: Stored) -> Evaluated:
        """Return the evaluation that is asked for."""
        return stored.evaluated(
            model=self.model, text=self.text, tokens=self.tokens, window=self.window, dtype=self.dtype
        )


RECIPES: Registry[type[PanelRecipe]] = Registry("kind of panel")
"""Every kind by its name; a page adds its own with :func:`recipe`."""


def recipe(kind: str) -> Callable[[type[PanelRecipe]], type[PanelRecipe]]:
    """Register a class as the kind of panel of this name."""

    def register(made: type[PanelRecipe]) -> type[PanelRecipe]:
        made.kind = kind
        return RECIPES.add(kind, made)

    return register
