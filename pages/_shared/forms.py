"""Forms made from a method's settings: one control a field, with its unit, range and help."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, get_args

import streamlit as st

from backend.errors import UserError
from backend.settings import SettingField, Settings
from backend.sparsity import METHODS, Policy, make_policy
from pages._shared.address import Address
from pages._shared.setting_control import setting_control


def settings_form(method: str, key: str) -> Policy:
    """Show a control for each setting of a method and return the policy.

    Raises:
        UserError: The values do not go together.
    """
    values: dict[str, Any] = {}
    for field in METHODS[method].describe():
        value = _control(field, f"{key}_{method}_{field.name}")
        if value is not None:
            values[field.name] = value
    return make_policy(method, values)


def settings_state(policy: Policy, key: str) -> dict[str, Any]:
    """Return the session's values with which :func:`settings_form` starts as this policy.

    Args:
        policy: The policy.
        key: As :func:`settings_form` takes it.
    """
    state: dict[str, Any] = {}
    for field in policy.describe():
        value = getattr(policy, field.name)
        if type(None) in get_args(field.annotation):  # a text field: empty is off
            values = () if value is None else value if isinstance(value, list | tuple) else (value,)
            value = ", ".join(f"{each:g}" for each in values)
        state[f"{key}_{policy.name}_{field.name}"] = value
    return state


def field_controls(
    settings: type[Settings], address: Address, key: str, leave_out: Collection[str]
) -> dict[str, Any]:
    """Show a control for each field of some settings, its value in the page's address; return the values.

    Args:
        settings: Whose fields.
        address: The page's address.
        key: Begins the controls' keys.
        leave_out: Fields that have a control elsewhere.
    """
    values: dict[str, Any] = {}
    fields = [field for field in settings.describe() if field.name not in leave_out]
    for field, column in zip(fields, st.columns(4) * len(fields), strict=False):
        name = f"{key}_{field.name}"
        if field.annotation is int:
            address.check_number(name, field.name, field.minimum or 0, 1_000_000)
        with column:
            values[field.name] = _control(field, name, bind="query-params")
    return {name: value for name, value in values.items() if value is not None}


def range_text(field: SettingField) -> str:
    """Return a setting's range: "(0, 1]", "≥ 0", or "" for none."""
    if field.minimum is not None and field.maximum is not None:
        return f"{'(' if field.minimum_excluded else '['}{field.minimum:g}, {field.maximum:g}]"
    if field.minimum is not None:
        return f"{'>' if field.minimum_excluded else '≥'} {field.minimum:g}"
    if "Share" in str(field.annotation) or "Le(le=1)" in str(field.annotation):
        return "(0, 1]"
    return ""


def values_of(text: str, what: str) -> list[float]:
    """Return the numbers of "0.1, 0.2, 0.5" or of a range "0.1:0.9:0.1" (first:last:step, last included).

    Args:
        text: What was typed.
        what: What the numbers are, for the message.

    Raises:
        UserError: It is neither.
    """
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if step <= 0 or last < first:
                raise ValueError
            return [round(first + index * step, 6) for index in range(int((last - first) / step + 1e-9) + 1)]
        return [float(part) for part in text.replace(";", ",").split(",") if part.strip()]
    except ValueError:
        raise UserError(
            f"{what}: '{text}' is neither a list like 0.3, 0.5, 0.7 nor a range like 0.1:0.9:0.1."
        ) from None


def _control(field: SettingField, key: str, **more: Any) -> Any:
    label = f"{field.name} ({field.unit})" if field.unit else field.name
    kinds = get_args(field.annotation) or (field.annotation,)
    if type(None) in kinds:
        return _optional(field, label, key)
    return setting_control(field, key, label=label, **more)


def _optional(field: SettingField, label: str, key: str) -> float | list[float] | None:
    """Show a text field: empty is off, one number holds for all layers, a list is one a layer."""
    text = st.text_input(label, help=field.help, key=key, placeholder="off; a number, or one a layer")
    if not text.strip():
        return None
    values = values_of(text, field.name)
    if not values:
        raise UserError(f"{field.name}: '{text}' holds no number.")
    return values[0] if len(values) == 1 else values
