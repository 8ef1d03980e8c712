"""Curves: the stored points of one method, told apart by settings, in the order of what a slider drags."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from backend.figures.palette import STYLES
from backend.sparsity import METHODS


@dataclass(frozen=True)
class Curve:
    """Points of one method that differ in its sweep setting only.

    Attributes:
        policy: The method's name.
        variant: Settings they share and that are not the defaults ("seed=1"), "" for none.
        points: The store's rows, ordered by MLP density.
        swept: They are on a line: each has a value of the method's sweep setting.
    """

    policy: str
    variant: str
    points: pd.DataFrame
    swept: bool

    @property
    def key(self) -> str:
        """Names the curve: the method, and the variant in brackets."""
        return f"{self.policy}[{self.variant}]" if self.variant else self.policy

    @property
    def label(self) -> str:
        """Its name for people; an oracle says that it is one."""
        name = title_of(self.policy) + (f" ({self.variant})" if self.variant else "")
        return name if self.realisable else f"{name.removesuffix(' oracle')} (oracle)"

    @cached_property
    def realisable(self) -> bool:
        """No oracle: its points may stand on the front."""
        return bool((self.points["how"] != "oracle").all())


def curves(points: pd.DataFrame) -> list[Curve]:
    """Sort points into curves, in the order of the palette; the dense model is none.

    Where a method was stored in several versions, only its newest counts.

    Args:
        points: Rows of one evaluation, as :func:`backend.results.queries.points` returns them.
    """
    groups: dict[tuple[str, str, bool], list[int]] = {}
    newest: dict[str, int] = {}
    named = zip(points["policy"], points["settings"], points["policy_version"], strict=True)
    for row, (policy, settings, version) in enumerate(named):
        if policy == "dense" or version < newest.get(policy, version):
            continue
        if version > newest.get(policy, version):
            groups = {key: rows for key, rows in groups.items() if key[0] != policy}
        newest[policy] = version
        groups.setdefault((policy, *_variant(policy, settings)), []).append(row)
    density = points["mlp_density"].to_numpy()
    found = [
        Curve(policy, variant, points.iloc[sorted(rows, key=density.__getitem__)], swept)
        for (policy, variant, swept), rows in groups.items()
    ]
    order = {name: index for index, name in enumerate([*STYLES, *(n for n in METHODS if n not in STYLES)])}
    return sorted(found, key=lambda c: (order.get(c.policy, len(order)), c.policy, not c.swept, c.variant))


def dense_point(points: pd.DataFrame) -> pd.Series | None:
    """Return the dense model's row, None if it was not measured."""
    dense = points[points["policy"] == "dense"]
    return None if dense.empty else dense.iloc[-1]


def title_of(policy: str) -> str:
    """Return a method's name for people; one that is no longer registered keeps its own."""
    return METHODS[policy].title if policy in METHODS else policy


@lru_cache(maxsize=100_000)
def point_label(policy: str, settings: str) -> str:
    """Return one point's name for people: "DIP · density 0.5"."""
    said = json.loads(settings)
    shown = ", ".join(
        f"{key} {_short(value)}" for key, value in said.items() if not _is_default(policy, key, value)
    )
    return f"{title_of(policy)} · {shown}" if shown else title_of(policy)


@lru_cache(maxsize=100_000)
def _variant(policy: str, settings: str) -> tuple[str, bool]:
    said: dict[str, Any] = json.loads(settings)
    sweep = METHODS[policy].sweep_setting if policy in METHODS else None
    swept = sweep is not None and said.pop(sweep, None) is not None
    if not swept:
        return "own settings", False
    others = (f"{key}={_short(value)}" for key, value in said.items() if not _is_default(policy, key, value))
    return ", ".join(others), True


def _is_default(policy: str, key: str, value: Any) -> bool:
    """Tell whether a setting that is no sweep setting says nothing new."""
    if policy not in METHODS or key == METHODS[policy].sweep_setting:
        return False
    return any(field.name == key and field.default == value for field in METHODS[policy].describe())


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{len(value)} values]"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
