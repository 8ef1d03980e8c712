"""Curves: the stored points of one method, told apart by settings, in the order of what a slider drags."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import pandas as pd

from backend.figures.controls import is_control, named_control
from backend.figures.palette import STYLES, Style, beside_style, variant_style
from backend.figures.setting_words import in_words, short_value
from backend.methods import every_method


@dataclass(frozen=True)
class Curve:
    """Points of one method that differ in its sweep setting only.

    Attributes:
        policy: The method's name.
        variant: Settings they share and that are not the defaults ("seed=1"), "" for none.
        points: The store's rows, ordered by MLP density.
        swept: They are on a line: each has a value of the method's sweep setting.
        precision: Their precision, "" for the one that all or most points have.
        place: How many other variants of its method come before it.
    """

    policy: str
    variant: str
    points: pd.DataFrame
    swept: bool
    precision: str = ""
    place: int = 0

    @property
    def key(self) -> str:
        """Names the curve: the method, and the variant in brackets."""
        named = f"{self.policy}[{self.variant}]" if self.variant else self.policy
        return f"{named}@{self.precision}" if self.precision else named

    @property
    def label(self) -> str:
        """Its name for people; an oracle or a control says that it is one."""
        said = f", {self._words}" if self.swept else f" ({self.variant})"
        name = title_of(self.policy) + (said if self.variant else "")
        name += f", {self.precision}" if self.precision else ""
        if not self.realisable:
            return f"{name.removesuffix(' oracle')} (oracle)"
        return named_control(self.policy, name)

    @property
    def _words(self) -> str:
        return _variant_words(self.policy, str(self.points["settings"].iloc[0]))

    @property
    def style(self) -> Style:
        """Its method's style; another variant shares its colour only, another precision has open markers."""
        style = variant_style(self.policy, self.place)
        return beside_style(style) if self.precision else style

    @cached_property
    def realisable(self) -> bool:
        """No oracle: it can be built."""
        return bool((self.points["how"] != "oracle").all())

    @property
    def usable(self) -> bool:
        """Neither an oracle nor a control: its points may stand on the front."""
        return self.realisable and not is_control(self.policy)


def curves(points: pd.DataFrame) -> list[Curve]:
    """Sort points into curves, in the order of the palette; the dense model is none.

    Where a method was stored in several versions, only its newest counts. Where points of two precisions
    stand side by side, the second one's are curves of their own, its dense model too.

    Args:
        points: Rows of one evaluation, as :func:`backend.results.queries.points` returns them.
    """
    groups: dict[tuple[str, str, bool, str], list[int]] = {}
    newest: dict[str, int] = {}
    main = main_precision(points)
    columns = ("policy", "settings", "policy_version", "dtype")
    named = zip(*(points[column] for column in columns), strict=True)
    for row, (policy, settings, version, dtype) in enumerate(named):
        precision = "" if dtype == main else str(dtype)
        if (policy == "dense" and not precision) or version < newest.get(policy, version):
            continue
        if version > newest.get(policy, version):
            groups = {key: rows for key, rows in groups.items() if key[0] != policy}
        newest[policy] = version
        variant = ("", False) if policy == "dense" else _variant(policy, settings)
        groups.setdefault((policy, *variant, precision), []).append(row)
    density = points["mlp_density"].to_numpy()
    places = _places(groups)
    found = [
        Curve(
            policy, variant, points.iloc[sorted(rows, key=density.__getitem__)], swept, precision,
            places[policy, variant, swept],
        )
        for (policy, variant, swept, precision), rows in groups.items()
    ]  # fmt: skip
    order = {
        name: index for index, name in enumerate([*STYLES, *(n for n in every_method() if n not in STYLES)])
    }
    return sorted(
        found,
        key=lambda c: (order.get(c.policy, len(order)), c.policy, not c.swept, c.variant, c.precision),
    )


def _places(keys: Iterable[tuple[str, str, bool, str]]) -> dict[tuple[str, str, bool], int]:
    """Number the variants of each method, as curves come; own settings share the method's first place."""
    places: dict[tuple[str, str, bool], int] = {}
    count: Counter[str] = Counter()
    for policy, variant, swept in sorted({key[:3] for key in keys}):
        places[policy, variant, swept] = count[policy] if swept else 0
        count[policy] += swept
    return places


def main_precision(points: pd.DataFrame) -> str | None:
    """Return the precision that needs no name: float32 if it is there, else the first; None for no points."""
    found = list(dict.fromkeys(points["dtype"]))
    return "float32" if "float32" in found else found[0] if found else None


def dense_point(points: pd.DataFrame) -> pd.Series | None:
    """Return the dense model's row (in the main precision), None if it was not measured."""
    dense = points[(points["policy"] == "dense") & (points["dtype"] == main_precision(points))]
    return None if dense.empty else dense.iloc[-1]


def title_of(policy: str) -> str:
    """Return a method's name for people; one that is no longer registered keeps its own."""
    methods = every_method()
    return methods[policy].title if policy in methods else policy


@lru_cache(maxsize=100_000)
def point_label(policy: str, settings: str) -> str:
    """Return one point's name for people: "DIP · density 0.5"."""
    said = json.loads(settings)
    shown = in_words(_new(policy, said))
    return f"{title_of(policy)} · {shown}" if shown else title_of(policy)


@lru_cache(maxsize=100_000)
def _variant(policy: str, settings: str) -> tuple[str, bool]:
    """Return what tells a variant from others, and whether its points are on a line."""
    said, swept = _without_sweep(policy, settings)
    if not swept:
        return "own settings", False
    others = (f"{key}={short_value(value)}" for key, value in _new(policy, said).items())
    return ", ".join(others), True


@lru_cache(maxsize=100_000)
def _variant_words(policy: str, settings: str) -> str:
    return in_words(_new(policy, _without_sweep(policy, settings)[0]))


def _without_sweep(policy: str, settings: str) -> tuple[dict[str, Any], bool]:
    """Return a point's settings but the one that a slider drags, and whether it has a value of that one."""
    said: dict[str, Any] = json.loads(settings)
    methods = every_method()
    sweep = methods[policy].sweep_setting if policy in methods else None
    return said, sweep is not None and said.pop(sweep, None) is not None


def _new(policy: str, said: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in said.items() if not _is_default(policy, key, value)}


def _is_default(policy: str, key: str, value: Any) -> bool:
    """Tell whether a setting that is no sweep setting says nothing new."""
    methods = every_method()
    if policy not in methods or key == methods[policy].sweep_setting:
        return False
    return any(field.name == key and field.default == value for field in methods[policy].describe())
