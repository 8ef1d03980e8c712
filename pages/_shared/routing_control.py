"""Choosing a routing policy of a mixture of experts: a method, set by its own settings."""

from __future__ import annotations

from typing import Any

from backend.routing import ROUTINGS, RoutingPolicy, make_routing
from pages._shared.setting_control import setting_control

STARTS = ("cache_prior", "max_rank", "cumulative_threshold")
"""Where the policies' controls start: each at its defaults, half of the experts cached."""


def routing_methods() -> list[str]:
    """Return the methods that can stand beside original routing, Cache-Prior first."""
    return sorted((name for name in ROUTINGS if name != "original"), key=lambda name: name != STARTS[0])


def routing_settings(method: str, key: str) -> RoutingPolicy:
    """Show a control for each setting of a routing policy and return it.

    Args:
        method: The method's name.
        key: Begins the controls' keys.

    Raises:
        UserError: The settings do not go together.
    """
    values: dict[str, Any] = {}
    for field in ROUTINGS[method].describe():
        value = setting_control(field, control_key(key, method, field.name))
        if value is not None:
            values[field.name] = value
    return make_routing(method, values)


def control_key(key: str, method: str, setting: str) -> str:
    """Return the key of one setting's control."""
    return f"{key}_{method}_{setting}"
