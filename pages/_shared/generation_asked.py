"""Asking the worker for a generation, and following one: which run is shown, and what this session asked."""

from __future__ import annotations

import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.generations import GenerationRequest
from backend.results import queries
from pages._shared.run_progress import UNFINISHED
from pages._shared.store import OpenStore

ADDRESS_KEY, PROMPT_KEY, TOKEN_KEY, COLOUR_KEY = "generation", "prompt", "token", "colour"
_MINE = "generation_mine"
"""Key of the run that this session asked for last."""
_ASKED = "generation_asked"
"""Key of what it asked."""


def shown_run() -> str:
    """Return the run that the address names, "" for none."""
    return str(st.query_params.get(ADDRESS_KEY, ""))


def show_run(run: str, prompt: int = 0) -> None:
    """Make a run and one of its prompts the shown ones."""
    st.query_params[ADDRESS_KEY] = run
    if prompt:
        st.query_params[PROMPT_KEY] = str(prompt + 1)
    else:
        st.query_params.pop(PROMPT_KEY, None)
    st.query_params.pop(TOKEN_KEY, None)


def name_run(run: str) -> None:
    """Have the address name a run if it names none: what else it says is said of that one."""
    st.query_params.setdefault(ADDRESS_KEY, run)


def chosen_token() -> tuple[int, int] | None:
    """Return side and place of the token that the address names ("1.17"), None for none."""
    side, dot, place = str(st.query_params.get(TOKEN_KEY, "")).partition(".")
    good = dot and all(part.isdecimal() and len(part) < 8 for part in (side, place))
    return (int(side), int(place) - 1) if good else None


def choose_token(run: str, side: int, place: int) -> None:
    """Make a token of a run's side the chosen one."""
    st.query_params.update({ADDRESS_KEY: run, TOKEN_KEY: f"{side}.{place + 1}"})


def choose_colour(run: str, name: str) -> None:
    """Make a colouring of a run the one that the address names."""
    st.query_params.update({ADDRESS_KEY: run, COLOUR_KEY: name})


def shown_prompt(count: int) -> int:
    """Return the number of the prompt that the address names, from 0; the first for one that there is not."""
    given = str(st.query_params.get(PROMPT_KEY, "1"))
    number = int(given) if given.isdecimal() and len(given) < 6 else 1
    return number - 1 if 1 <= number <= count else 0


def asked_last() -> str | None:
    """Return what this session asked for last, as JSON."""
    found: str | None = st.session_state.get(_ASKED)
    return found


def start_from(said: str) -> None:
    """Take what the form says now for what was asked last: a session that asked nothing yet begins there."""
    st.session_state[_ASKED] = said


def ask(opened: OpenStore, request: GenerationRequest) -> bool:
    """Stop what this session's last generation still writes, ask for another and show it.

    Returns:
        Whether it was asked for; if not, the page says why.
    """
    try:
        stop(opened, st.session_state.get(_MINE))
        run = client.submit(opened.home, request, "prompts" if request.is_list else "generation")
        opened.refresh(at_once=True)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return False
    if not request.is_list:
        st.session_state[_MINE], st.session_state[_ASKED] = run, request.model_dump_json()
    show_run(run)
    return True


def stop(opened: OpenStore, run: str | None) -> None:
    """Stop a run if it has not ended; its text so far is kept.

    Raises:
        UserError: There is no such run.
    """
    found = None if run is None else queries.run(opened.store, run)
    if found is not None and found.status in UNFINISHED:
        client.cancel(opened.home, found.run_id)
