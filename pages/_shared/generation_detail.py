"""The token that was clicked: what both sides thought likely there, and what each layer read."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from backend.figures.drawing.text import short
from backend.figures.generations import shown_tokens, side_label, visible
from backend.figures.palette import STYLES
from backend.figures.spec import Axis, FigureSpec, Provenance, Series
from backend.generations import DENSE
from backend.generations.columns import MISSED, USED, TokenColumn
from backend.generations.readings import entries_key
from backend.results.generations import Form, Generation, Side
from pages._shared.figures import show_figure
from pages._shared.generation_asked import chosen_token
from pages._shared.generation_words import about

_LAYER_UNITS = {MISSED: "experts", USED.name: "experts"}
"""Units of one layer's values, where they are not the token's."""


def show_token(shown: Generation, form: Form) -> None:
    """Show the token that was clicked, or how to choose one."""
    chosen = chosen_token()
    if chosen is None:
        st.caption(
            "Click a token, or move with the arrow keys and press Enter, for what both sides thought likely."
        )
        return
    number, place = chosen
    side = shown.sides[number] if number < len(shown.sides) else None
    tokens = [] if side is None else shown_tokens(shown, side, form)
    if side is None or not 0 <= place < len(tokens):
        st.caption(f"The address names token {place + 1} of side {number}, which there is not here.")
        return
    token = tokens[place]
    with st.container(border=True, key="generation_token_card"):
        st.markdown(f"**Token {place + 1} of {side_label(side)}**")
        st.text(_facts(token, side))
        left, right = st.columns(2)
        with left:
            _top(side_label(side), token["top"], token["text"])
        with right:
            if side.number != DENSE and token["dense_top"] is not None:
                _top(
                    f"{side_label(shown.sides[DENSE])}, at the same context",
                    token["dense_top"],
                    token["text"],
                )
        _layers(shown, side, token)


def _facts(token: dict[str, Any], side: Side) -> str:
    return " · ".join(about(token, side).split("\n"))


def _top(title: str, top: list[Any], taken: str) -> None:
    table = pd.DataFrame(
        {
            "Token": [visible(text).replace("\n", "↵") for text, _ in top],
            "Probability": [math.exp(logprob) for _, logprob in top],
            "Taken": ["✓" if text == taken else "" for text, _ in top],
        }
    )
    st.caption(f"Most likely: {title}")
    st.dataframe(
        table, hide_index=True, alt=f"Most likely tokens: {title}", key=f"top_{title}",
        column_config={
            "Probability": st.column_config.ProgressColumn(format="%.3f", min_value=0.0, max_value=1.0)
        },
    )  # fmt: skip


def _layers(shown: Generation, side: Side, token: dict[str, Any]) -> None:
    known = [column for column in side.columns if column.name in token["layers"]]
    if not known:
        st.caption("The prompt gave this token: no layer was read for it alone.")
        return
    column = known[0]
    if len(known) > 1:
        label = st.radio("By layer", [each.label for each in known], horizontal=True, key="generation_layers")
        column = next(each for each in known if each.label == label)
    _experts(token)
    show_figure(
        _layer_spec(shown, side, token, column), "generation_layers_figure", height=260, legend=False,
        paper=(3.25, 2.0),
    )  # fmt: skip


def _experts(token: dict[str, Any]) -> None:
    """Show which experts each layer used and which of them its cache missed, for a mixture."""
    used, missed = (token["layers"].get(entries_key(name)) for name in (USED.name, MISSED))
    if not used:
        return
    table = pd.DataFrame(
        {
            "Layer": range(len(used)),
            "Missed": [" ".join(map(str, each)) for each in missed or [[]] * len(used)],
            "Experts used, best first": [" ".join(map(str, each)) for each in used],
        }
    )
    st.dataframe(table, hide_index=True, height=220, alt="Experts by layer", key="generation_experts")


def _layer_spec(shown: Generation, side: Side, token: dict[str, Any], column: TokenColumn) -> FigureSpec:
    values = tuple(float(value) for value in token["layers"][column.name])
    ends = column.range
    series = Series(
        name=side.policy,
        label=side_label(side),
        style=STYLES[side.policy],
        x=tuple(float(layer) for layer in range(len(values))),
        y=values,
        details=tuple(f"layer {layer}: {short(value)}" for layer, value in enumerate(values)),
    )
    text = visible(token["text"]).replace("\n", "↵")
    return FigureSpec(
        title=f"{column.label} by layer, token {token['place'] + 1} “{text}”",
        x=Axis(label="Layer"),
        y=Axis(
            label=column.label.split(" (")[0], unit=_LAYER_UNITS.get(column.name, column.unit),
            better=column.better,
            range=None if ends is None else (ends[0] - 0.03, ends[1] + 0.03),
        ),
        series=(series,),
        provenance=Provenance(runs=(shown.run_id,), methods=(side.policy,), how=(column.how,)),
    )  # fmt: skip
