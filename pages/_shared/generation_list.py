"""A list of prompts, ranked by how much a policy hurts each; a click shows its strips."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pandas as pd
import streamlit as st

from backend.errors import UserError
from backend.evaluation.texts import TEXTS
from backend.figures.curves import point_label
from backend.figures.generations import visible
from backend.generations import GenerationRequest
from backend.generations.request import MOST_PROMPTS
from backend.home import REPOSITORY
from backend.results.generations import hurt
from backend.routing import ROUTINGS
from pages._shared.generation_asked import ask, show_run
from pages._shared.generation_form import model_and_style, policy_controls, sampling_controls
from pages._shared.store import OpenStore

OWN_PROMPTS = REPOSITORY / "data" / "prompts.txt"
_TEXT, _FILE, _OWN = "Pieces of a text", "My file", "Sparsity Lens's own prompts"
_COLUMNS = ("prompt", "question", "text")
"""Names of the column of prompts in a CSV or JSON Lines file."""


def ranking_section(opened: OpenStore, run_id: str) -> None:
    """Show the prompts of a run, those that a policy hurts most first; a click on one shows it."""
    found = hurt(opened.store, run_id)
    if found["item"].nunique() < 2:
        return
    labels = {
        int(side): point_label(str(policy), str(settings))
        for side, policy, settings in found[["side", "policy", "settings"]].drop_duplicates().to_numpy()
    }
    with st.container(horizontal=True, vertical_alignment="bottom"):
        side = st.selectbox(
            "Policy", list(labels), format_func=labels.__getitem__, key="hurt_side", width=260
        )
        by = st.radio("Rank by", ["KL", "Divergence"], key="hurt_by", horizontal=True)
    rows = found[found["side"] == side]
    order = ["kl"] if by == "KL" else ["divergence", "kl"]
    rows = rows.sort_values(order, ascending=by != "KL", na_position="last")
    shown = pd.DataFrame(
        {
            "Prompt": [" ".join(visible(str(text)).split())[:160] for text in rows["prompt"]],
            "Mean KL (nats) ↓": rows["kl"],
            "KL on": [
                f"{'original routing' if policy in ROUTINGS else 'dense'}'s text"
                if form == "forced"
                else "its own text"
                for form, policy in zip(rows["form"], rows["policy"], strict=True)
            ],
            "Differs from token": rows["divergence"] + 1,
            "Tokens": rows["tokens"],
        }
    )
    items = [int(item) for item in rows["item"]]

    def choose() -> None:
        chosen = st.session_state["hurt_table"]["selection"]["rows"]
        if chosen:
            show_run(run_id, items[chosen[0]])

    st.dataframe(
        shown, hide_index=True, key="hurt_table", alt="Prompts, ranked by how much the policy hurts them",
        on_select=choose, selection_mode="single-row",
        column_config={"Mean KL (nats) ↓": st.column_config.NumberColumn(format="%.3f")},
    )  # fmt: skip
    st.caption(
        "The mean is over the decoded tokens: the first one comes from the prompt and is left out. No place: "
        "both texts are the same as far as they go. A click shows the prompt's strips above."
    )


def list_form(opened: OpenStore) -> None:
    """Show the form that asks for a list."""
    source = st.radio("Prompts", [_OWN, _TEXT, _FILE], horizontal=True, key="list_source")
    try:
        asked = _prompts(source)
        left, right = st.columns(2)
        with left:
            policies = policy_controls("list", 1)
        with right:
            style = model_and_style("list")
            values = style | sampling_controls("list")
        if asked is None:
            return
        request = GenerationRequest.parse(
            {**values, **asked, "policies": policies, "order": "in turn"}, "The list"
        )
        request.plans()
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    if st.button("Write them all", type="primary", icon=":material/play_arrow:", key="list_generate") and ask(
        opened, request
    ):
        st.rerun()


def _prompts(source: str | None) -> dict[str, Any] | None:
    """Show the source's controls; return the request's values, None until there are prompts."""
    if source == _OWN:
        prompts = read_prompts(OWN_PROMPTS.name, OWN_PROMPTS.read_bytes())
        st.caption(f"{len(prompts)} prompts of our own wording, in data/prompts.txt.")
        return {"prompts": prompts}
    if source == _FILE:
        uploaded = st.file_uploader(
            "One prompt a line (.txt), or a column 'prompt' (.csv, .jsonl)", ["txt", "csv", "jsonl"],
            key="list_file",
        )  # fmt: skip
        if uploaded is None:
            return None
        prompts = read_prompts(uploaded.name, uploaded.getvalue())
        st.caption(f"{len(prompts)} prompts.")
        return {"prompts": prompts}
    first, second, third = st.columns(3)
    with first:
        text = st.selectbox("Text", list(TEXTS), key="list_text", accept_new_options=True)
    with second:
        pieces = st.number_input("Pieces", 2, MOST_PROMPTS, 16, key="list_pieces")
    with third:
        length = st.number_input("Tokens of each", 4, 4_096, 32, key="list_piece_tokens")
    return {"text": text or next(iter(TEXTS)), "pieces": pieces, "piece_tokens": length}


def read_prompts(name: str, content: bytes) -> tuple[str, ...]:
    """Return the prompts of a file: one a line, or the column ``prompt`` of CSV or JSON Lines.

    Raises:
        UserError: It is no UTF-8, has no such column, no prompts, or too many.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    if name.endswith(".csv"):
        found = _column_of(name, _csv_rows(name, text))
    elif name.endswith(".jsonl"):
        found = _column_of(name, _json_lines(name, text))
    else:
        found = text.splitlines()
    prompts = tuple(each for each in found if each.strip())
    if not prompts:
        raise UserError(f"{name} holds no prompt; write one a line.")
    if len(prompts) > MOST_PROMPTS:
        raise UserError(f"{name} has {len(prompts)} prompts; a list holds at most {MOST_PROMPTS}.")
    return prompts


def _csv_rows(name: str, text: str) -> list[dict[str, Any]]:
    try:
        return list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise UserError(
            f"{name} is no CSV file that can be read ({error}); a field holds at most "
            f"{csv.field_size_limit():,} characters, and quotes have to be closed."
        ) from error


def _json_lines(name: str, text: str) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise UserError(f"{name} is no JSON Lines file: {error}.") from error
    except RecursionError as error:
        raise UserError(f"{name} nests too deeply; each line has to be an object with 'prompt'.") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{name}: each line has to be an object with the key 'prompt'.")
    return rows


def _column_of(name: str, rows: list[dict[str, Any]]) -> list[str]:
    keys = {key.lower(): key for row in rows[:1] for key in row if isinstance(key, str)}
    known = next((keys[each] for each in _COLUMNS if each in keys), None)
    if known is None:
        raise UserError(f"{name} has no column 'prompt'.")
    return [str(row.get(known) or "") for row in rows]
