"""Names of routing policies and their settings for people, from the registry."""

from __future__ import annotations

from typing import Any

from backend.figures.curves import title_of
from backend.methods import every_method
from backend.settings import SettingField

CACHE_SETTINGS = ("cache_share", "slots", "eviction", "seed")
"""Settings of the cache that a routing looks at; points of one curve may differ in them."""


def strength_of(policy: str) -> str | None:
    """Return the setting that a policy is dragged by, None if it has none."""
    methods = every_method()
    return methods[policy].sweep_setting if policy in methods else None


def symbol_of(policy: str, name: str) -> str:
    """Return a setting's symbol, or its name."""
    field = _fields(policy).get(name)
    return field.symbol if field is not None and field.symbol else name


def settings_text(policy: str, settings: dict[str, Any]) -> str:
    """Return settings for people: "λ 0.5, J 1"; those of the cache and defaults say nothing new."""
    fields, strength = _fields(policy), strength_of(policy)
    shown = {
        name: value
        for name, value in settings.items()
        if name not in CACHE_SETTINGS
        and (name == strength or name not in fields or fields[name].default != value)
    }
    return ", ".join(f"{symbol_of(policy, name)} {_short(value)}" for name, value in shown.items())


def policy_title(policy: str, settings: dict[str, Any]) -> str:
    """Return a policy with its settings for people: "Cache-Prior, λ 0.5"."""
    said = settings_text(policy, settings)
    return f"{title_of(policy)}, {said}" if said else title_of(policy)


def _fields(policy: str) -> dict[str, SettingField]:
    methods = every_method()
    return {field.name: field for field in methods[policy].describe()} if policy in methods else {}


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
