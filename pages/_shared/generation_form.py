"""The form of a generation: prompt, model, policies with their sliders, and how tokens are drawn."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from backend.errors import UserError
from backend.generations import LONGEST, MOST_POLICIES, GenerationRequest
from backend.generations.request import is_mixture, policy_json
from backend.methods import Method, every_method
from backend.models import CATALOG, DEFAULT_MODEL
from backend.routing import ROUTINGS
from backend.settings import SettingField
from backend.sparsity import Policy
from pages._shared.forms import settings_state
from pages._shared.generation_asked import ask, asked_last, start_from
from pages._shared.policy_control import (
    BY_DENSITY,
    BY_SETTINGS,
    policy_methods,
    policy_settings,
    slider_low,
)
from pages._shared.routing_control import STARTS as ROUTING_STARTS
from pages._shared.routing_control import control_key, routing_methods, routing_settings
from pages._shared.store import OpenStore

PAUSE_SECONDS = 0.7
"""How long the controls have to rest before a text is written anew."""
POLL_SECONDS = 0.3
_LIVE, _PENDING, _FILLED = "generation_live", "generation_pending", "generation_filled"
_STARTS = (("dip", 0.5), ("glu_pruning", 0.7), ("gate_pruning", 0.5))
"""Where the policies' controls start."""
_FIRST_PROMPT = "Explain in a few sentences why the sea is salty."
_FIELDS = {field.name: field for field in GenerationRequest.describe()}


def form_section(opened: OpenStore, shown: dict[str, Any] | None) -> None:
    """Show the form, and write anew when something was changed, if that is wanted.

    Args:
        opened: The store.
        shown: What the shown generation asked for; a session's first form starts with it.
    """
    if shown is not None and _FILLED not in st.session_state:
        _fill(shown)
    st.session_state[_FILLED] = True
    live = st.toggle(
        "Write anew on change", key=_LIVE,
        help="After a pause of 0.7 s; what still runs is stopped. A prompt that dense reads is kept read.",
    )  # fmt: skip
    st.fragment(_form)(opened, live)
    if live:
        st.fragment(_wait, run_every=POLL_SECONDS)(opened)


def sampling_controls(prefix: str) -> dict[str, Any]:
    """Show how tokens are drawn and the prompt is read; return the request's values."""
    _start(prefix, max_tokens=64, seed=0, top_p=1.0, temperature=0.0, prefill="dense")
    values: dict[str, Any] = {}
    first, second = st.columns(2, vertical_alignment="bottom")
    with first:
        values["max_tokens"] = st.number_input(
            "Tokens", 1, LONGEST, step=16, key=f"{prefix}_max_tokens", help=_help("max_tokens")
        )
        values["temperature"] = st.slider(
            "Temperature", 0.0, 2.0, step=0.05, key=f"{prefix}_temperature", help=_help("temperature")
        )
    with second:
        values["seed"] = st.number_input(
            "Seed", 0, 2**32 - 1, step=1, key=f"{prefix}_seed", help=_help("seed")
        )
        values["top_p"] = st.slider("Top-p", 0.05, 1.0, step=0.05, key=f"{prefix}_top_p", help=_help("top_p"))
    if _mixture(prefix):  # a routing policy has a setting of its own for the prompt
        return values | {"prefill": "dense"}
    values["prefill"] = st.radio(
        "Policies read the prompt", ["dense", "sparse"], horizontal=True, key=f"{prefix}_prefill",
        help=_help("prefill"),
    )  # fmt: skip
    return values


def model_and_style(prefix: str) -> dict[str, Any]:
    """Show the model and how it reads the prompt."""
    _start(prefix, model=DEFAULT_MODEL, style="chat")
    now = str(st.session_state[f"{prefix}_model"] or DEFAULT_MODEL)
    model = st.selectbox(
        "Model", list(dict.fromkeys([*CATALOG, now])), key=f"{prefix}_model", accept_new_options=True,
        help=_help("model"),
    )  # fmt: skip
    style = st.radio(
        "The prompt is", ["chat", "raw"], horizontal=True, key=f"{prefix}_style", help=_help("style")
    )
    return {"model": model or DEFAULT_MODEL, "style": style}


def policy_controls(prefix: str, count: int) -> tuple[dict[str, Any], ...]:
    """Show the policies, ``count`` at first; return them as a request names them.

    Raises:
        UserError: A policy's settings do not go together.
    """
    _start(prefix, count=count)
    mixture = _mixture(prefix)
    chosen = st.slider(
        f"Policies beside {'original routing' if mixture else 'dense'}",
        0,
        MOST_POLICIES,
        key=f"{prefix}_count",
    )
    policies = []
    for place in range(chosen):
        with st.container(border=True, gap="small", key=f"{prefix}_policy_{place}"):
            policies.append(policy_json(_policy(prefix, place, mixture)))
    return tuple(policies)


def _mixture(prefix: str) -> bool | None:
    """Tell whether the form's model is a mixture of experts, None for one that is not in the catalog."""
    return is_mixture(str(st.session_state.get(f"{prefix}_model") or DEFAULT_MODEL))


def _policy(prefix: str, place: int, mixture: bool | None) -> Method:
    """Show one policy's controls: those of the model's kind, or of both where it is not known."""
    start, density = _STARTS[place]
    methods = [*([] if mixture else policy_methods()), *(routing_methods() if mixture is not False else [])]
    name = f"{'routing' if mixture else 'method'}_{place}"
    _start(prefix, **{name: ROUTING_STARTS[place] if mixture else start, f"by_{place}": BY_DENSITY})
    if st.session_state[f"{prefix}_{name}"] not in methods:
        st.session_state[f"{prefix}_{name}"] = start
    method = st.selectbox(
        f"Policy {place + 1}", methods, key=f"{prefix}_{name}",
        format_func=lambda each: every_method()[each].title,
    )  # fmt: skip
    if method in ROUTINGS:
        return routing_settings(method, f"{prefix}_{place}")
    by = st.radio(
        f"Set policy {place + 1} by", [BY_DENSITY, BY_SETTINGS], key=f"{prefix}_by_{place}",
        horizontal=True, label_visibility="collapsed",
    )  # fmt: skip
    return policy_settings(method, by, f"{prefix}_{place}", density=density)


def _form(opened: OpenStore, live: bool) -> None:
    _start("generate", prompt=_FIRST_PROMPT, order="together", forced=True)
    prompt = st.text_area("Prompt", key="generate_prompt", height=110)
    at_the_top = st.container()  # the button stands under the prompt, and knows all that is below it
    try:
        policies = policy_controls("generate", 1)
        with st.expander("Model, length and draws", icon=":material/tune:", key="generate_more"):
            values = model_and_style("generate") | sampling_controls("generate")
            order = st.radio(
                "Sides share this machine", ["together", "in turn"], horizontal=True, key="generate_order",
                help=f"{_help('order')} Either way tokens/s counts a side's own steps only.",
            )  # fmt: skip
            whose = "original routing's" if _mixture("generate") else "dense's"
            forced = st.toggle(f"Also score policies on {whose} text", key="generate_forced")
        request = GenerationRequest.parse(
            {**values, "prompts": (prompt or "",), "policies": policies, "order": order, "forced": forced},
            "The form",
        )
        request.plans()
    except UserError as error:
        at_the_top.error(str(error), icon=":material/error:")
        st.session_state.pop(_PENDING, None)
        return
    with at_the_top:
        if st.button(
            "Generate", type="primary", icon=":material/play_arrow:", key="generate", width="stretch"
        ) and ask(opened, request):
            st.session_state.pop(_PENDING, None)
            st.rerun()
    if live:
        _note_change(request)


def _note_change(request: GenerationRequest) -> None:
    """Remember since when the form says something else than what was asked for last."""
    said = request.model_dump_json()
    if asked_last() is None:
        start_from(said)
    if said == asked_last():
        st.session_state.pop(_PENDING, None)
    elif st.session_state.get(_PENDING, ("",))[0] != said:
        st.session_state[_PENDING] = (said, time.monotonic())


def _wait(opened: OpenStore) -> None:
    """Ask for what the form says once it has rested; nothing is shown."""
    said, since = st.session_state.get(_PENDING, (None, 0.0))
    if said is not None and time.monotonic() - since >= PAUSE_SECONDS:
        st.session_state.pop(_PENDING, None)
        if ask(opened, GenerationRequest.model_validate_json(said)):
            st.rerun()


def _fill(asked: dict[str, Any]) -> None:
    """Start the controls with what a stored generation asked for."""
    try:
        request = GenerationRequest.parse(asked, "The stored generation")
        policies = request.plans()[1:]
    except UserError:  # an older program's; the form starts with its own
        return
    state: dict[str, Any] = {f"generate_{name}": getattr(request, name) for name in _KEPT}
    if request.prompts:
        state["generate_prompt"] = request.prompts[0]
    state["generate_count"] = len(policies)
    for place, policy in enumerate(policies):
        if not isinstance(policy, Policy):
            state |= _routing_state(policy, place, bool(is_mixture(request.model)))
            continue
        state[f"generate_method_{place}"] = policy.name
        density = _on_the_slider(policy)
        if density is not None:
            state[f"generate_{place}_density_{policy.name}"] = density
        else:
            state[f"generate_by_{place}"] = BY_SETTINGS
            state |= settings_state(policy, f"generate_{place}")
    for key, value in state.items():
        st.session_state.setdefault(key, value)


def _routing_state(policy: Method, place: int, known: bool) -> dict[str, Any]:
    """Return the values of one routing policy's controls."""
    key = f"generate_{place}"
    settings = {control_key(key, policy.name, name): value for name, value in policy.canonical().items()}
    return {f"generate_{'routing' if known else 'method'}_{place}": policy.name, **settings}


def _on_the_slider(policy: Policy) -> float | None:
    """Return where the density slider makes this very policy, None where it cannot."""
    expected = policy.expected_density()
    density = 0.0 if expected is None else round(expected, 2)
    if not slider_low(type(policy)) <= density <= 1.0:
        return None
    try:
        return density if _rounded(policy) == _rounded(type(policy).at_density(density)) else None
    except UserError:
        return None


def _rounded(policy: Policy) -> dict[str, Any]:
    """Return a policy's settings, numbers to what a slider can say."""
    values = policy.canonical().items()
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in values}


_KEPT = (
    "model", "style", "max_tokens", "top_p", "seed", "temperature", "prefill", "order", "forced",
)  # fmt: skip


def _start(prefix: str, **values: Any) -> None:
    """Let controls start with these values, unless the session has others."""
    for name, value in values.items():
        st.session_state.setdefault(f"{prefix}_{name}", value)


def _help(name: str) -> str:
    field: SettingField = _FIELDS[name]
    return field.help
