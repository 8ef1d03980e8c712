"""A method under one label: what is a series of its own on the sparse-activation page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import pandas as pd

from backend.figures.controls import is_control
from backend.figures.curves import title_of
from backend.figures.palette import DASHES, MARKERS, STYLES, Style, style_of
from backend.figures.setting_words import in_words
from backend.sparsity import METHODS

Role = Literal["oracle label", "wrong label", "label-free oracle", "realisable", "control"]
LABELS = {
    "own": "oracle label: own greedy token",
    "next": "oracle label: true next token",
    "second": "wrong label: second choice",
    "random": "wrong label: random token",
}
ROLES: tuple[Role, ...] = get_args(Role)
UNITS = {"mlp": "MLP neurons", "heads": "Attention heads", "both": "Neurons and heads"}
"""What is kept or dropped, by the setting's value."""
WRONG = ("second", "random")


@dataclass(frozen=True)
class Variant:
    """A method with all settings but the share it keeps.

    Attributes:
        policy: The method's name.
        label: Whose log-probability it attributes; "" for a method without a label.
        others: Its other settings that are not the defaults, as "metric=magnitude".
        units: What is kept or dropped: "mlp" (neurons), "heads" or "both".
        words: The other settings as people say them: "ranked over all layers".
    """

    policy: str
    label: str = ""
    others: str = ""
    units: str = "mlp"
    words: str = ""

    @property
    def key(self) -> str:
        """Names the series: no two variants share one."""
        units = "" if self.units == "mlp" else f"units={self.units}"
        said = ", ".join(part for part in (self.label and f"label={self.label}", self.others, units) if part)
        return f"{self.policy}[{said}]" if said else self.policy

    @property
    def role(self) -> Role:
        """What its numbers can be used for."""
        method = METHODS.get(self.policy)
        if is_control(self.policy):
            return "control"
        if self.label in WRONG:
            return "wrong label"
        if method is not None and not method.label_free:
            return "oracle label"
        return "realisable" if method is None or method.realisable else "label-free oracle"

    @property
    def title(self) -> str:
        """Its name in a legend: an oracle, a label and a control say so."""
        asides = [LABELS[self.label]] if self.label else []
        asides += [self.words] if self.words else []
        asides += [UNITS[self.units].lower()] if self.units != "mlp" else []
        asides += [self.role] if self.role in ("label-free oracle", "control") else []
        return f"{title_of(self.policy)} ({', '.join(asides)})" if asides else title_of(self.policy)

    @property
    def style(self) -> Style:
        """Its colour is the method's; marker and dash are its own."""
        if self.label in ("", "own") and not self.others and self.units == "mlp":
            return style_of(self.policy)
        return _variant_style(self)


def variant_of(policy: str, settings: str) -> tuple[Variant, float | None]:
    """Return a stored point's variant and the share that it keeps, None where that is not one number.

    Args:
        policy: The method's name.
        settings: Its settings, JSON.
    """
    said = json.loads(settings)
    method = METHODS.get(policy)
    keep = said.pop(method.sweep_setting if method is not None and method.sweep_setting else "keep", None)
    label = str(said.pop("label", ""))
    defaults = {} if method is None else {field.name: field.default for field in method.describe()}
    units = str(said.pop("units", "mlp"))
    new = {key: value for key, value in said.items() if defaults.get(key) != value}
    others = ", ".join(f"{key}={value}" for key, value in new.items())
    found = Variant(policy, label, others, units, in_words(new))
    return found, float(keep) if isinstance(keep, int | float) else None


def with_variants(points: pd.DataFrame) -> pd.DataFrame:
    """Return points with the columns ``variant`` and ``keep`` (a share, NaN where there is no one share)."""
    found = [variant_of(*row) for row in zip(points["policy"], points["settings"], strict=True)]
    return points.assign(
        variant=pd.Series([variant for variant, _ in found], index=points.index, dtype=object),
        keep=pd.Series([keep for _, keep in found], index=points.index, dtype="float64"),
    )


def variants(points: pd.DataFrame) -> list[Variant]:
    """Return the variants among points (of :func:`with_variants`), by role and then as in the palette."""
    order = {name: place for place, name in enumerate(STYLES)}
    found = {variant for variant in points["variant"] if variant.policy != "dense"}
    return sorted(
        found,
        key=lambda each: (
            ROLES.index(each.role),
            each.units != "mlp",
            order.get(each.policy, len(order)),
            each.key,
        ),
    )


@lru_cache(maxsize=1_000)
def _variant_style(variant: Variant) -> Style:
    """Give a variant a style that no method and no other label of its method has."""
    base = style_of(variant.policy)
    taken = {style_of(name) for name in METHODS}
    free = [
        style
        for marker in MARKERS
        for dash in DASHES
        if (style := Style(colour=base.colour, marker=marker, dash=dash)) not in taken
    ]
    # Methods of one colour take turns, so that their variants differ too.
    alike = [name for name in METHODS if style_of(name).colour == base.colour]
    labels = [*LABELS, ""]
    place = alike.index(variant.policy) * len(labels) + labels.index(variant.label)
    if variant.others or variant.units != "mlp":
        said = f"{variant.others}{list(UNITS).index(variant.units) or ''}"
        place += len(alike) * len(labels) + sum(said.encode()) % 7
    return free[place % len(free)]
