"""One control for one setting, made from its description: kind, range, unit and help.

A control's value lies in the session under its key, so that a page can set it; there is no second default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args, get_origin

import streamlit as st

from backend.errors import UserError
from backend.settings import SettingField

_STEP = 0.05


def setting_control(
    field: SettingField,
    key: str,
    *,
    label: str = "",
    choices: Sequence[Any] | None = None,
    shown: Callable[[Any], str] | None = None,
    unset: str = "default",
    **more: Any,
) -> Any:
    """Show a control for a setting and return its value, None where the setting may be off and is.

    Args:
        field: The setting.
        key: Of the control, and of its value in the session; the default is used where there is none.
        label: By default the setting's name and unit.
        choices: What may be chosen, where the description does not say it.
        shown: A choice's name for people.
        unset: What an empty control means.
        **more: Passed to Streamlit's control (``width``).

    Raises:
        UserError: What was typed is not what the setting takes.
    """
    kinds = get_args(field.annotation) or (field.annotation,)
    optional = type(None) in kinds
    if key not in st.session_state and key not in st.query_params:  # one that is bound has its value there
        st.session_state[key] = _default(field)
    label = label or label_of(field)
    asked: dict[str, Any] = {"key": key, "help": field.help, **more}
    if get_origin(field.annotation) is Literal:
        choices = choices or get_args(field.annotation)
    for kind in (field.annotation, *kinds):
        if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
            choices = choices or get_args(get_args(kind)[0])
    if any(get_origin(kind) is tuple for kind in (field.annotation, *kinds)):
        found = _several(label, choices, optional, unset, shown, asked)
        return found[0] if _one_will_do(field) and found is not None and len(found) == 1 else found
    if choices is not None:
        return _choice(label, choices, optional, unset, shown, asked)
    if field.annotation is bool:
        return st.toggle(label, **asked)
    if int in kinds or float in kinds:
        return _number(field, label, whole=int in kinds, unset=unset if optional else None, asked=asked)
    return st.text_input(label, placeholder=unset if optional else None, **asked) or None


def _one_will_do(field: SettingField) -> bool:
    """Tell whether a setting takes one number as well as several (a share, or one a layer)."""
    kinds = () if get_origin(field.annotation) is tuple else get_args(field.annotation)
    return any(get_origin(kind) is not tuple and kind is not type(None) for kind in kinds)


def label_of(field: SettingField) -> str:
    """Return a setting's name for people, with its unit: "Font size (points)"."""
    words = field.name.removesuffix(f"_{field.unit.lower()}").replace("_", " ").capitalize()
    return f"{words} ({field.unit})" if field.unit else words


def _default(field: SettingField) -> Any:
    if isinstance(field.default, tuple):
        return list(field.default)
    return field.default if isinstance(field.default, bool | int | float | str) else None


def _least(field: SettingField) -> float | None:
    if field.minimum is None:
        return None
    return field.minimum + (_STEP if field.minimum_excluded else 0.0)


def _choice(
    label: str,
    choices: Sequence[Any],
    optional: bool,
    unset: str,
    shown: Callable[[Any], str] | None,
    asked: dict[str, Any],
) -> Any:
    if asked["key"] in st.session_state and st.session_state[asked["key"]] not in choices:
        st.session_state[asked["key"]] = None if optional or not choices else choices[0]

    def named(choice: Any) -> str:
        return shown(choice) if shown else str(choice).replace("_", " ").capitalize()

    return st.selectbox(
        label, choices, index=None if optional else 0, format_func=named, placeholder=unset.capitalize(),
        **asked,
    )  # fmt: skip


def _number(
    field: SettingField, label: str, *, whole: bool, unset: str | None, asked: dict[str, Any]
) -> int | float | None:
    kind = int if whole else float
    low, high = (None if end is None else kind(end) for end in (_least(field), field.maximum))
    value = st.session_state.get(asked["key"])
    if value is not None and not isinstance(value, kind):
        st.session_state[asked["key"]] = value = kind(value)
    if value is not None and low is not None and field.minimum is not None and field.minimum < value < low:
        low = value  # the control's first step leaves room that a stored setting may be in
    chosen: int | float | None = st.number_input(
        label, min_value=low, max_value=high, value=None if unset else "min", placeholder=unset,
        **({"step": 1 if whole else _STEP} | asked),
    )  # fmt: skip
    return chosen


def _several(
    label: str,
    choices: Sequence[Any] | None,
    optional: bool,
    unset: str,
    shown: Callable[[Any], str] | None,
    asked: dict[str, Any],
) -> list[Any] | None:
    """Show what takes several values: none chosen is off where that may be."""
    value = st.session_state.get(asked["key"])
    if choices is None:
        if not isinstance(value, str):
            known = value if isinstance(value, list | tuple) else () if value is None else (value,)
            st.session_state[asked["key"]] = ", ".join(f"{each:g}" for each in known)
        text = st.text_input(label, placeholder=unset, **asked) or ""
        try:
            found: list[Any] = [float(part) for part in text.split(",") if part.strip()]
        except ValueError:
            raise UserError(f"{label}: '{text}' is no list of numbers like 0.5, 0.7.") from None
    else:
        if value is None or any(each not in choices for each in value):
            st.session_state[asked["key"]] = [each for each in value or () if each in choices]
        found = st.multiselect(
            label, choices, format_func=shown or str, placeholder=unset.capitalize(), **asked
        )
    return None if optional and not found else found
