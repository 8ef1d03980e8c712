"""A method's settings in words: "caches 39 %, γ 0.3" for what the store keeps as cache_share and gamma."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LETTERS = {"gamma": "γ", "lambda_": "λ", "theta": "θ"}
"""Settings that are named after a letter of a formula, which reads better as that letter."""
_SHARES = {"cache_share": "caches", "input_cache": "input caches", "neuron_cache": "neuron caches"}
"""Shares that people say in per cent."""
_CHOICES = {("ranking", "global"): "ranked over all layers"}
"""Choices that need no setting's name beside them."""


def in_words(settings: Mapping[str, Any]) -> str:
    """Return settings as people say them, in their own order: "caches 39 %, γ 0.3".

    Args:
        settings: Names to values; those that say nothing new are left out before.
    """
    return ", ".join(_words(name, value) for name, value in settings.items())


def _words(name: str, value: Any) -> str:
    if chosen := _CHOICES.get((name, str(value))):
        return chosen
    if name in _SHARES and isinstance(value, int | float):
        return f"{_SHARES[name]} {100 * value:g} %"
    if value is True:
        return name.replace("_", " ")
    return f"{_LETTERS.get(name, name.replace('_', ' '))} {short_value(value)}"


def short_value(value: Any) -> str:
    """Return one value as short text: a number without trailing zeros, a list by its length."""
    if isinstance(value, list):
        return f"[{len(value)} values]"
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
