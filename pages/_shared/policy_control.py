"""Choosing a policy: a method, set by a density slider or by its own settings."""

from __future__ import annotations

import streamlit as st

from backend.sparsity import METHODS, Policy
from pages._shared.forms import settings_form

BY_DENSITY, BY_SETTINGS = "Density", "Own settings"


def policy_methods() -> list[str]:
    """Return the methods that can stand beside dense, DIP first."""
    return sorted((name for name in METHODS if name != "dense"), key=lambda name: name != "dip")


def policy_settings(method: str, by: str | None, key: str, *, density: float = 0.5) -> Policy:
    """Show what sets a method and return the policy.

    Args:
        method: The method's name.
        by: ``BY_DENSITY`` or ``BY_SETTINGS``.
        key: Begins the controls' keys.
        density: Where the slider starts.

    Raises:
        UserError: The settings do not go together.
    """
    if by == BY_SETTINGS:
        return settings_form(method, key)
    policy = METHODS[method]
    floor, low = policy.density_floor(), slider_low(policy)
    name = f"{key}_density_{method}"
    if name not in st.session_state:
        st.session_state[name] = max(low, density)
    target = st.slider("MLP density", low, 1.0, step=0.01, key=name)
    if floor:
        st.caption(f"{policy.title} reads at least {floor:.2f} of the MLP weights.")
    return policy.at_density(float(target))


def slider_low(policy: type[Policy]) -> float:
    """Return the lowest density that a method's slider offers."""
    floor = policy.density_floor()
    return round(floor + 0.01, 2) if floor else 0.05
