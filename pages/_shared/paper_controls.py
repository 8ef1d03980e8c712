"""How a figure looks on paper: the controls, made from the settings' own descriptions."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.figures.paper import CUSTOM, PALETTES, VENUES, PaperFigure, PaperSettings, to_page
from backend.settings import SettingField
from pages._shared.setting_control import setting_control

FIRST = ("venue", "span", "width_in", "height_in", "font_size", "palette")
"""Beside each other above the preview."""
GROUPS = {
    "Shown": ("markers", "error_bars", "dominated", "front", "baselines", "claims"),
    "Axes and legend": ("legend", "grid", "x_scale", "y_scale", "shared_axes", "directions"),
    "Words and sizes": ("title", "titles", "letters", "columns", "line_width", "marker_size", "dpi"),
}
"""Beside the preview."""
_FIELDS = {field.name: field for field in PaperSettings.describe()}
_LABELS = {
    "span": "Columns of the page", "width_in": "Width (in)", "height_in": "Height (in)",
    "font_size": "Font (pt)", "x_scale": "Horizontal axes", "y_scale": "Vertical axes",
    "shared_axes": "Panels share axes", "dominated": "Dominated points", "front": "Pareto front",
    "baselines": "Baselines", "claims": "Papers' claims", "directions": "Better directions",
    "letters": "Panel letters", "titles": "Panel titles", "title": "Title above it",
    "dpi": "PNG (dpi)", "columns": "Panels in a row", "line_width": "Lines (pt)",
    "marker_size": "Marker size (pt)",
}  # fmt: skip
_WIDTHS = {"venue": 190, "span": 190, "width_in": 110, "height_in": 130, "font_size": 110, "palette": 140}
_CONTROLS_OF = "paper_controls_of"
"""Key of the id of the figure whose values the controls hold."""


def seed(figure: PaperFigure) -> None:
    """Set the controls to a figure that they did not make themselves."""
    if st.session_state.get(_CONTROLS_OF) != figure.id:
        for key in [str(key) for key in st.session_state if str(key).startswith("paper_set_")]:
            del st.session_state[key]
        st.session_state[_CONTROLS_OF] = figure.id


def seeded(figure: PaperFigure) -> None:
    """Say that the controls hold the values of this figure: they made it."""
    st.session_state[_CONTROLS_OF] = figure.id


def first_controls(figure: PaperFigure) -> dict[str, Any]:
    """Show venue, width, height, font and palette; return what they say."""
    values: dict[str, Any] = {}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        values["venue"] = _control(figure, "venue")
        own = values["venue"] == CUSTOM
        values["width_in"] = None
        if own:
            values["width_in"] = _control(figure, "width_in") or figure.settings.width
        elif VENUES[values["venue"]].has_columns:
            values["span"] = _control(figure, "span", VENUES[values["venue"]])
        for name in ("height_in", "font_size", "palette"):
            values[name] = _control(figure, name)
    return values


def more_controls(figure: PaperFigure) -> dict[str, Any]:
    """Show the groups of finer controls; return what they say."""
    values: dict[str, Any] = {}
    for place, (heading, names) in enumerate(GROUPS.items()):
        with st.expander(heading, expanded=place == 0, key=f"paper_group_{place}"):
            for name in names:
                values[name] = _control(figure, name)
    return values


def seeded_text(label: str, name: str, value: str, **more: Any) -> str:
    """Show a text field that holds a figure's value until it is changed; "" where it is empty."""
    key = f"paper_set_{name}"
    if key not in st.session_state:
        st.session_state[key] = value
    return str(st.text_input(label, key=key, **more) or "").strip()


def _control(figure: PaperFigure, name: str, venue: Any = None) -> Any:
    key = f"paper_set_{name}"
    if key not in st.session_state:
        st.session_state[key] = _value(figure, name)
    more: dict[str, Any] = {}
    if name == "venue":
        more = {"choices": [*VENUES, CUSTOM], "shown": _venue}
    elif name == "palette":
        more = {"choices": list(PALETTES), "shown": lambda chosen: PALETTES[chosen].title}
    elif name == "span":
        more = {"shown": lambda span: _span(span, venue.column_in, venue.page_in)}
    elif name == "height_in":
        more = {"unset": f"{to_page(figure).height_in:g}"}
    elif name == "columns":
        more = {"unset": "up to three"}
    elif name in ("x_scale", "y_scale"):
        more = {"shown": _scale}
    elif name in ("font_size", "line_width", "marker_size"):
        more = {"step": 0.5}
    if name in _WIDTHS:
        more["width"] = _WIDTHS[name]
    return setting_control(_FIELDS[name], key, label=_label(_FIELDS[name]), **more)


def _value(figure: PaperFigure, name: str) -> Any:
    settings = figure.settings
    return settings.width if name == "width_in" else getattr(settings, name)


def _label(field: SettingField) -> str:
    return _LABELS.get(field.name, field.name.replace("_", " ").capitalize())


def _venue(name: str) -> str:
    if name == CUSTOM:
        return "Custom width"
    venue = VENUES[name]
    return f"{venue.title} · {venue.column_in:g} in" if not venue.has_columns else venue.title


def _span(span: str, column_in: float, page_in: float) -> str:
    return f"One column · {column_in:g} in" if span == "column" else f"Whole width · {page_in:g} in"


def _scale(scale: str) -> str:
    return "As in the figure" if scale == "figure" else {"log": "Logarithmic"}.get(scale, "Linear")
