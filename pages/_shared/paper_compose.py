"""Composing a panel from stored results: a kind of panel, and a form made from that kind's own settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from backend.devices import DEVICES, SHAPES
from backend.errors import UserError
from backend.figures import COST, QUALITY, FigureSpec
from backend.figures.metrics import ALL
from backend.figures.recipes import RECIPES, PanelRecipe, Stored
from backend.figures.recipes.panels import EvaluationChoice
from backend.results.generations import generation_runs
from backend.settings import SettingField
from backend.sparsity import METHODS
from pages._shared.evaluation import evaluation_labels
from pages._shared.memory_data import known_sources
from pages._shared.setting_control import setting_control
from pages._shared.store import OpenStore, evaluations

_FIRST = "trade_off"
_RULES = {"lru": "LRU", "lfu": "LFU", "belady": "Belady"}
_LABELS = {"dram_gb": "DRAM (GB)", "at": "At the cost", "log": "Logarithmic", "view": "Range"}
_STARTS = {"at": 0.5}
"""Values of settings that have no default."""
_EVALUATION = tuple(field.name for field in EvaluationChoice.describe())


@dataclass(frozen=True)
class _Choices:
    """What a setting that names something may name, and its names for people."""

    names: Sequence[str]
    shown: Callable[[str], str] = str


def compose_panel(opened: OpenStore, *, to_open: bool) -> tuple[FigureSpec, bool] | None:
    """Show the form; return a drawn panel and whether it joins the open figure; None until one is asked for.

    Args:
        opened: The store.
        to_open: Whether a figure is open that can take the panel.
    """
    kinds = sorted(RECIPES, key=lambda name: name != _FIRST)  # that of the first view, then the others
    kind = RECIPES[st.selectbox("Kind of panel", kinds, format_func=_title, key="paper_kind")]
    st.caption((kind.__doc__ or "").splitlines()[0])
    try:
        values = _form(opened, kind)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return None
    with st.container(horizontal=True):
        add = to_open and st.button("Add as a panel", icon=":material/add:", key="paper_compose_add")
        new = st.button("New figure of this", icon=":material/note_add:", key="paper_compose_new")
    if not (add or new):
        return None
    try:
        with st.spinner("Drawing …"):
            return kind.parse(values, kind.kind).draw(Stored(opened.store, opened.home)), add
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return None


def _form(opened: OpenStore, kind: type[PanelRecipe]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    fields = [field for field in kind.describe() if field.name not in _EVALUATION]
    if len(fields) < len(kind.describe()):
        values |= _evaluation(opened)
    columns = st.columns(3)
    for place, field in enumerate(fields):
        known = _choices(opened, field, values)
        more: dict[str, Any] = {"choices": known.names, "shown": known.shown} if known else {}
        key = f"paper_compose_{kind.kind}_{field.name}"
        if field.name in _STARTS and key not in st.session_state:
            st.session_state[key] = _STARTS[field.name]
        with columns[place % 3]:
            value = setting_control(
                field, key, label=_LABELS.get(field.name, ""), unset=_unset(field), **more
            )
        if value is not None:
            values[field.name] = value
    return values


def _evaluation(opened: OpenStore) -> dict[str, Any]:
    """Show which evaluation's results are drawn, as on the other pages."""
    table = evaluations(opened)
    labels = evaluation_labels(table)
    chosen = st.selectbox("Model, text and windows", labels, key="paper_compose_evaluation")
    if chosen is None:
        return {}
    row = table.iloc[labels.index(chosen)]
    return {name: getattr(row[name], "item", lambda name=name: row[name])() for name in _EVALUATION}


def _choices(opened: OpenStore, field: SettingField, values: dict[str, Any]) -> _Choices | None:
    if field.name == "quality":
        return _Choices(list(QUALITY), lambda name: QUALITY[name].label)
    if field.name == "cost":
        return _Choices(list(COST), lambda name: COST[name].label)
    if field.name == "view":
        return _Choices([*QUALITY[values["quality"]].views, ALL])
    if field.name == "methods":
        return _Choices(list(METHODS), lambda name: METHODS[name].title)
    if field.name == "policy":
        return _Choices(["dip", "dip_ca"], lambda name: METHODS[name].title)
    if field.name == "eviction":
        return _Choices(list(_RULES), _RULES.__getitem__)
    if field.name == "device":
        return _Choices(list(DEVICES), lambda name: DEVICES[name].title)
    if field.name == "shape":
        return _Choices(list(SHAPES))
    if field.name == "run":
        return _Choices([str(run) for run in generation_runs(opened.store)["run_id"]])
    if field.name == "source":
        return _Choices([source.label for source in known_sources(opened)])
    return None


def _unset(field: SettingField) -> str:
    return "all" if field.name == "methods" else "default"


def _title(kind: str) -> str:
    return kind.replace("_", " ").capitalize()
