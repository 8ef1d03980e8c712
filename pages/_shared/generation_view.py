"""One generation as it is stored now: its state, and a strip a side; drawn again while it is written."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import streamlit as st

from backend.errors import UserError
from backend.experiments import client
from backend.figures.generations import (
    FORMS,
    colours_of,
    is_routed,
    note_of,
    shown_tokens,
    side_label,
    summary,
    visible,
)
from backend.generations.request import DENSE
from backend.results import queries
from backend.results.generations import Form, Generation, Side, generation, prompts_in
from backend.results.queries import StoredRun
from pages._shared.address import Address, place
from pages._shared.generation_asked import (
    COLOUR_KEY,
    PROMPT_KEY,
    choose_colour,
    choose_token,
    chosen_token,
    name_run,
    show_run,
    shown_prompt,
    shown_run,
    stop,
)
from pages._shared.generation_detail import show_token
from pages._shared.generation_exports import exports
from pages._shared.generation_words import shown_strip
from pages._shared.run_progress import UNFINISHED, run_now, status_badge
from pages._shared.store import OpenStore
from pages._shared.token_colours import colour_control
from pages._shared.token_strip import show_token_strip

POLL_SECONDS = 0.4
PAGE_TOKENS = 512
"""Tokens of a strip that are shown at once."""


def view_section(opened: OpenStore, run_id: str) -> None:
    """Show a run's texts, again and again while it has not ended."""
    run = queries.run(opened.store, run_id)
    unfinished = run is not None and run.status in UNFINISHED
    st.fragment(_view, run_every=POLL_SECONDS if unfinished else None)(opened, run_id, unfinished)


def _view(opened: OpenStore, run_id: str, unfinished: bool) -> None:
    run = run_now(opened, run_id, unfinished)
    if run is None:
        return
    address = Address()
    prompts = prompts_in(opened.store, run_id)
    item = shown_prompt(len(prompts))
    if prompts and not unfinished:
        address.check_number(PROMPT_KEY, "prompt", 1, len(prompts))
    with place():
        _state(opened, run)
    with place():
        if len(prompts) > 1:
            _prompt_picker(run_id, prompts, item)
    found: _Read | None = _read(opened, str(opened.home.root), opened.store.version, run_id, item)
    if found is None:
        if run.status == "cancelled":
            st.info("Stopped before a token was written.", icon=":material/stop:")
        return
    shown = found.shown
    _prompt(shown, run.spec)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = address.segments("Compare", list(FORMS.values()), "form", default=FORMS["free"])
        form: Form = next(name for name, title in FORMS.items() if title == chosen)
        first = _pages(address, shown, form)
    if any(key in st.query_params for key in ("form", "tokens")):
        name_run(run_id)
    by = address.named("Colour by", [each.scale.label for each in found.colours], COLOUR_KEY)
    colour = next(each for each in found.colours if each.scale.label == by)
    colour_control(
        "Colour by",
        [each.scale for each in found.colours],
        by,
        "generation_colour",
        on_choose=partial(choose_colour, run_id),
    )
    _strips(found, form, first, run)
    st.caption(f"{note_of(shown, form)} {_order_note(run.spec, is_routed(shown))}")
    show_token(shown, form)
    exports(opened, shown, run, form, colour)


class _Read:
    """A generation as it was read, its strips worded and coloured when first asked for."""

    def __init__(self, shown: Generation) -> None:
        self.shown = shown
        self.colours = colours_of(shown)
        self._strips: dict[tuple[Form, int, int], str] = {}

    def strip(self, side: Side, form: Form, first: int) -> str:
        """Return what a side's strip shows from a place on, :func:`packed`."""
        key = form, side.number, first
        if key not in self._strips:
            tokens = shown_tokens(self.shown, side, form)[first : first + PAGE_TOKENS]
            self._strips[key] = shown_strip(tokens, side, self.colours)
        return self._strips[key]


def _query(_opened: OpenStore, root: str, version: int, run_id: str, item: int) -> _Read | None:
    found = generation(_opened.store, run_id, item)
    return None if found is None else _Read(found)


# Keyed by the store's version: a choice of token does not read or word the texts again.
_read = st.cache_resource(_query, show_spinner=False, max_entries=8)


def _state(opened: OpenStore, run: StoredRun) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        status_badge(run.status)
        st.caption(_sentence(opened, run))
        running = run.source == "local" and run.status in UNFINISHED
        if running and st.button("Stop", icon=":material/stop:", key="generation_stop"):
            try:
                stop(opened, run.run_id)
            except UserError as error:
                st.error(str(error), icon=":material/error:")
    if run.status == "failed":
        st.error(run.message or "The generation failed.", icon=":material/error:")
    elif run.status == "interrupted":
        go_on = (
            "Resume on the page Runs goes on with the first prompt that is not finished."
            if run.kind == "prompts"
            else "Generate writes it anew."
        )
        st.warning(
            f"The worker ended in the middle; the text so far is kept. {go_on}", icon=":material/power_off:"
        )


def _sentence(opened: OpenStore, run: StoredRun) -> str:
    """Return what is going on with a run, in a sentence."""
    if run.status == "queued":
        before = client.jobs_before(opened.home, run.run_id)
        status = client.worker_status(opened.home)
        running = f" The worker runs {status.run}." if status.run else ""
        if status.state in ("absent", "starting"):
            return "The worker is starting."
        return f"In the queue, {before} before it.{running}" if before else f"Next in the queue.{running}"
    if run.status == "running":
        events = queries.events(opened.store, run.run_id, last=400)
        if not (events["kind"] == "generation_started").any():
            said = events[events["kind"] == "message"]
            return str(json.loads(said["payload"].iloc[-1])["message"]) if len(said) else "Loading the model."
        done = queries.progress(opened.store, run.run_id) or {}
        total = int(done.get("total") or 1)
        return "Writing." if total < 2 else f"Writing; {done.get('done')} of {total} prompts done."
    return f"{run.run_id} · {run.message or ''}"


def _prompt_picker(run_id: str, prompts: list[str], item: int) -> None:
    key = f"generation_item_{run_id}"

    def choose() -> None:
        if shown_run() in ("", run_id):  # a control that goes away with its run also tells a change
            show_run(run_id, int(st.session_state[key]))

    st.session_state[key] = item
    st.selectbox(
        "Prompt of the list", range(len(prompts)), key=key, on_change=choose,
        format_func=lambda place: f"{place + 1}. {' '.join(visible(prompts[place]).split())[:90]}",
    )  # fmt: skip


def _prompt(shown: Generation, asked: dict[str, Any]) -> None:
    with st.container(border=True, gap="small"):
        st.text(visible(shown.prompt[:2_000]) + (" …" if len(shown.prompt) > 2_000 else ""))
        drawn = "greedy" if not asked.get("temperature") else (
            f"temperature {asked['temperature']:g}, top-p {asked.get('top_p', 1):g}, "
            f"seed {asked.get('seed', 0)}"
        )  # fmt: skip
        read = "by each side" if is_routed(shown) else asked.get("prefill", "dense")
        st.caption(
            f"{shown.model} · {asked.get('style', 'chat')} · {shown.prompt_tokens:,} tokens read {read} · "
            f"at most {asked.get('max_tokens', 64):,} more · {drawn}"
        )
        with st.expander("As the model reads it", icon=":material/notes:", key="generation_read_as"):
            st.code(visible(shown.read_as), language=None, wrap_lines=True)


def _pages(address: Address, shown: Generation, form: Form) -> int:
    """Show which tokens are shown where a text is long; return the first place."""
    longest = max((len(shown_tokens(shown, side, form)) for side in shown.sides), default=0)
    if longest <= PAGE_TOKENS:
        return 0
    # Named by whole parts, so that a growing text does not rename the chosen one.
    starts = range(0, longest, PAGE_TOKENS)
    parts = {f"{start + 1:,}–{start + PAGE_TOKENS:,}": start for start in starts}
    _, place = chosen_token() or (None, 0)
    holding = min(max(place, 0) // PAGE_TOKENS, len(starts) - 1)
    return parts[address.choice("Tokens", list(parts), "tokens", default=list(parts)[holding], width=150)]


def _strips(found: _Read, form: Form, first: int, run: StoredRun) -> None:
    shown = found.shown
    columns = [column for _ in shown.sides[::2] for column in st.columns(2, gap="small")]
    for side, column in zip(shown.sides, columns, strict=False):
        with column, st.container(border=True, gap="small", key=f"generation_side_{side.number}"):
            st.markdown(
                f"**{side_label(side)}**" + (" :orange-badge[oracle]" if side.how == "oracle" else "")
            )
            st.caption(summary(shown, side, form))
            _strip(found, side, form, first, run)


def _strip(found: _Read, side: Side, form: Form, first: int, run: StoredRun) -> None:
    number, place = chosen_token() or (None, None)
    show_token_strip(
        found.strip(side, form, first),
        f"strip_{side.number}",
        label=f"{side_label(side)}, tokens from {first + 1:,} on",
        first=first,
        selected=place if number == side.number else None,
        marked=found.shown.divergence(side) if form == "free" and side.number != DENSE else None,
        nothing=side.no_text if form == "free" and side.no_text else _nothing(run, form),
        on_choose=partial(choose_token, found.shown.run_id, side.number),
    )


def _nothing(run: StoredRun, form: Form) -> str:
    if run.status in UNFINISHED:
        return "Scored when the texts are written." if form == "forced" else "No token yet."
    return "Not scored on the dense model's text." if form == "forced" else "No token was written."


def _order_note(asked: dict[str, Any], routed: bool) -> str:
    together = asked.get("order", "together") == "together"
    if routed:
        turns = "a token each in turn" if together else "one after the other"
        return (
            f"Sides wrote {turns} on one machine; tokens/s counts a side's own steps, hooks on the routers "
            "included, scoring left out: decoding with experts loaded from disk is on Mixture of experts. "
            "Original routing reads each text in pieces of 16 tokens behind it."
        )
    how = (
        "Sides wrote a token each in turn on one machine, its memory laid out for the first policy"
        if together
        else "Sides wrote one after the other, memory laid out for each"
    )
    return (
        f"{how}; tokens/s counts a side's own steps, scoring left out, on a machine that may have been busy: "
        "latencies that were timed alone are on Trade-offs. The dense model reads each text in pieces of 16 "
        "tokens behind it."
    )
