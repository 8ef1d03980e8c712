"""Generations: token by token, dense and sparse side by side, live."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import streamlit as st

from backend.figures.generations import visible
from backend.results import queries
from backend.results.generations import generation_runs
from pages._shared.generation_asked import chosen_token, show_run, shown_run
from pages._shared.generation_form import form_section
from pages._shared.generation_list import list_form, ranking_section
from pages._shared.generation_view import view_section
from pages._shared.navigation import draw
from pages._shared.store import OpenStore, open_store
from pages._shared.text import ago, quoted

_PICK = "generation_pick"
_HOW = r"""
- **Who writes**: the worker, one token at a time, into the run's folder; the page only reads. Reload it,
  open it twice, close it: nothing is lost. Generations wait in one queue and pass a running sweep at its
  next window.
- **Free-running**: each side goes on from its own text. With a temperature, every side draws with the same
  random numbers, by the inverse of the cumulative distribution, so that a divergence is the policy's and
  not the dice's.
- **Forced**: the dense model's text is fed to the policy, so that every token is predicted at the same
  context.
- **KL** is $\mathrm{KL}(p_\mathrm{dense} \Vert p_\mathrm{sparse})$ of the whole distribution at that place;
  **Δlog p** is $\log p_\mathrm{sparse} - \log p_\mathrm{dense}$ of the token that stands there; **rank** is
  that token's place in the dense model's order. All three are by the dense model at the *same context*: on
  a sparse side's own text it reads that text in pieces of 16 tokens behind it, with a cache of its own.
- **MLP density** is the share of MLP weights that the token read, from the masks that ran. The first token
  comes from the prompt: read dense it is dense's own, KL 0, and has no density; means leave it out. A policy
  with a cache brings its own columns: hits, bytes missed, how full the cache is.
- **Gathered** kernels read only the chosen weights; their tokens/s is measured. **Masked** runs compute
  everything and multiply by masks: their tokens/s says nothing about the method. An **oracle** makes its
  masks from the text itself and can only be scored forced.
- **Mixtures of experts** (`smollm2-moe`) take routing policies; original routing is the reference, where
  the above says dense. Each side reads the prompt itself, for its caches follow it. A token shows its
  experts, how many of them are not the model's own, and its **misses**, which are simulated: all experts
  are in memory here. A policy that looks at a cache has its own; for the others half of the experts are
  cached, LRU. The column says which.
- Stored: every token with both top-5s and every layer's values, all settings, commit and packages. JSON
  holds all of it. `python -m backend generate --policy dip --set density=0.5 --prompt "…"` does the same on
  the command line.
"""


def _picker(runs: pd.DataFrame) -> str:
    """Show which generation is shown; return its run."""
    ids = [str(run) for run in runs["run_id"]]
    asked = shown_run()
    if asked and asked not in ids:
        st.warning(
            f"The address asks for the generation {quoted(asked)}, which there is not; the newest is shown.",
            icon=":material/link_off:",
        )
    elif not asked and chosen_token() is not None:
        st.warning(
            "The address names a token but no generation; it is looked for in the newest.",
            icon=":material/link_off:",
        )
    shown = asked if asked in ids else ids[0]
    labels = {str(row.run_id): _label(row) for row in runs.itertuples()}
    st.session_state[_PICK] = shown

    def pick() -> None:
        show_run(str(st.session_state[_PICK]))

    st.selectbox("Generation", ids, format_func=labels.__getitem__, key=_PICK, on_change=pick)
    return shown


def _label(row: Any) -> str:
    spec = json.loads(row.spec)
    prompts = spec.get("prompts") or ()
    first = " ".join(visible(prompts[0]).split()) if prompts else f"pieces of {spec.get('text')}"
    count = f"{len(prompts)} prompts: " if len(prompts) > 1 else ""
    methods = ", ".join(str(policy.get("method")) for policy in spec.get("policies", ())) or "dense alone"
    kept = first if len(first) <= 60 else first[:59] + "…"
    source = "" if row.source == "local" else f" · {row.source}"
    return f"{count}{kept} · {methods} · {ago(row.created_at)}{source} · {row.run_id[-4:]}"


def _list(opened: OpenStore, run_id: str) -> None:
    st.header("A list of prompts")
    st.markdown(
        "Which prompts does a policy hurt most? By KL on the reference's text, or by where the texts part."
    )
    ranking_section(opened, run_id)
    with st.expander("Write a list", icon=":material/playlist_add:", key="new_list"):
        st.fragment(list_form)(opened)


def page() -> None:
    """Draw the page."""
    st.title("Generations")
    st.markdown("The same prompt, dense and sparse, token by token, and where a policy changes the text.")
    opened = open_store()
    runs = generation_runs(opened.store)
    left, right = st.columns([2, 5], gap="large")
    run_id = ""
    with right:
        if runs.empty:
            st.info("Nothing is written yet. Press Generate.", icon=":material/edit_note:")
        else:
            run_id = _picker(runs)
            view_section(opened, run_id)
    run = queries.run(opened.store, run_id) if run_id else None
    with left:
        form_section(opened, None if run is None else run.spec)
    _list(opened, run_id)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)


draw(page)
