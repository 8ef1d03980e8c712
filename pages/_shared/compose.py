"""Composing a sweep: the form, the same as YAML, how many cells it has and how long they may take."""

from __future__ import annotations

from typing import Any, get_args

import streamlit as st
import yaml

from backend.errors import UserError
from backend.evaluation.texts import TEXTS
from backend.experiments import client
from backend.experiments.evaluations import EVALUATIONS, FidelityEvaluation, LatencyEvaluation
from backend.experiments.evaluations.kinds import Dtype
from backend.experiments.sweep import Sweep
from backend.models import CATALOG, DEFAULT_MODEL, OTHER_SOURCES
from backend.results import queries
from backend.sparsity import METHODS
from pages._shared.address import Address
from pages._shared.forms import field_controls, values_of
from pages._shared.store import OpenStore, latencies
from pages._shared.text import duration

RUN_KEY = "run"
KINDS = {"Quality on a text": FidelityEvaluation.kind, "Latency on this machine": LatencyEvaluation.kind}
"""What can be measured, by its name on the page."""
_PREFILLING = ("name", "model", "text", "tokens", "window", "methods", "kind")
_DEFAULT_VALUES = "0.3, 0.5, 0.7, 0.9"


def compose(opened: OpenStore, address: Address) -> None:
    """Show the two ways to say what to run, and a button to start it."""
    form, file = st.tabs(["Compose", "From a file"], key="compose_tab", on_change="rerun")
    if form.open:
        with form:
            _offer(opened, lambda: _from_form(address), "form")
    if file.open:
        with file:
            _offer(opened, _from_file, "file")


def prefilled() -> bool:
    """Tell whether the address says something about the sweep to compose."""
    return any(key in st.query_params for key in _PREFILLING)


def to_yaml(sweep: Sweep) -> str:
    """Return the sweep as the file that says the same."""
    return to_text(sweep.as_asked())


def to_text(content: dict[str, Any]) -> str:
    """Return plain values as YAML."""
    text: str = yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )
    return text


def _offer(opened: OpenStore, make: Any, key: str) -> None:
    try:
        sweep = make()
        if sweep is None:
            return
        cells = len(sweep.plans())
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    seconds = _expected_seconds(opened, sweep, cells)
    time = (
        "no results yet to estimate the time by"
        if seconds is None
        else f"about {duration(seconds)} on this machine"
    )
    text = to_yaml(sweep)
    with st.expander(f"{cells} cells, {time}. The sweep as a file", icon=":material/description:"):
        st.code(text, language="yaml")
        st.download_button(
            "Save the file", text, f"{sweep.name}.yaml", "text/yaml", key=f"{key}_yaml", on_click="ignore"
        )
    if st.button("Start the sweep", type="primary", icon=":material/play_arrow:", key=f"{key}_start"):
        try:
            run = client.submit(opened.home, sweep, "sweep")
        except UserError as error:
            st.error(str(error), icon=":material/error:")
            return
        opened.refresh(at_once=True)
        st.session_state["new_run"] = run
        st.rerun()


def _expected_seconds(opened: OpenStore, sweep: Sweep, cells: int) -> float | None:
    """Return how long the cells may take by what stored ones took, None if nothing like them is stored."""
    asked = sweep.evaluation
    if isinstance(asked, FidelityEvaluation):
        pace = queries.seconds_per_token(opened.store)
        return None if pace is None else pace * asked.tokens * cells
    table = latencies(opened)
    if table.empty or not isinstance(asked, LatencyEvaluation):
        return None
    per_token = table["seconds"] / (table["rounds"] * table["tokens"])
    return float(per_token.median()) * asked.rounds * asked.tokens * cells


def _from_form(address: Address) -> Sweep | None:
    kind = KINDS[address.segments("What to measure", list(KINDS), "kind", default=next(iter(KINDS)))]
    first, second, third = st.columns(3)
    with first:
        name = st.text_input("Name", "sweep", key="name", bind="query-params", help="Letters, digits, dashes")
        model = st.selectbox(
            "Model", list(CATALOG), key="model", bind="query-params", accept_new_options=True,
            help="A name of the catalog, or " + ", ".join(f"{s.title} ({s.example})" for s in OTHER_SOURCES),
        )  # fmt: skip
    with second:
        text = st.selectbox(
            "Text", list(TEXTS), key="text", bind="query-params", accept_new_options=True,
            help="A named text or the path of a text file on this machine",
        )  # fmt: skip
    with third if kind == LatencyEvaluation.kind else second:
        dtype = address.choice("Precision", get_args(Dtype), "dtype")
    asked: dict[str, Any] = {"text": text, "dtype": dtype}
    if kind == LatencyEvaluation.kind:
        asked |= {"kind": kind, **_timing(address)}
    else:
        with third:
            asked |= _windows(address)
    titles = {method.title: name for name, method in METHODS.items() if method.sweep_setting}
    chosen = address.several("Methods", list(titles), "methods", default=[METHODS["dip"].title])
    if kind == LatencyEvaluation.kind:
        _say_who_is_refused(titles)
    policies: list[dict[str, Any]] = [{"method": "dense"}]
    for title, column in zip(chosen, st.columns(3) * len(titles), strict=False):
        with column:
            policies.append(_values(titles[title]))
    return Sweep.parse(
        {"name": name, "model": model or DEFAULT_MODEL, "evaluation": asked, "policies": policies},
        "sweep",
    )


def _windows(address: Address) -> dict[str, int]:
    address.check_number("tokens", "tokens", 2, 10_000_000)
    tokens = st.number_input("Tokens", 2, 10_000_000, 4_096, 512, key="tokens", bind="query-params")
    address.check_number("window", "window", 2, 1_000_000)
    window = st.number_input("Window", 2, 1_000_000, 1_024, 128, key="window", bind="query-params")
    return {"tokens": int(tokens), "window": int(window)}


def _timing(address: Address) -> dict[str, Any]:
    """Show the settings of a latency, from the registry of evaluations."""
    evaluation = EVALUATIONS[LatencyEvaluation.kind]
    values = field_controls(evaluation, address, evaluation.kind, ("text", "dtype"))
    st.caption(
        "Decoding at batch one, in turns with the dense model. Timing wants the machine to itself: rounds "
        "that other programs disturb are repeated and, if that does not help, marked."
    )
    return values


def _say_who_is_refused(titles: dict[str, str]) -> None:
    oracles = [
        title for title, name in titles.items() if not (METHODS[name].realisable and METHODS[name].label_free)
    ]
    if oracles:
        st.caption(f"Without a latency, since they need what they count as skipped: {', '.join(oracles)}.")


def _values(name: str) -> dict[str, Any]:
    method = METHODS[name]
    setting = str(method.sweep_setting)
    field = next(field for field in method.describe() if field.name == setting)
    text = st.text_input(
        f"{method.title}: {setting}", _DEFAULT_VALUES, key=f"values_{name}", bind="query-params",
        help=f"{field.help} A list (0.3, 0.5) or a range first:last:step (0.1:0.9:0.1).",
    )  # fmt: skip
    values = values_of(text or "", f"{method.title}, {setting}")
    if not values:
        raise UserError(
            f"{method.title} has no value of {setting}; give at least one, or leave the method out."
        )
    return {"method": name, setting: values}


def _from_file() -> Sweep | None:
    uploaded = st.file_uploader("A sweep file (YAML)", ["yaml", "yml"], key="sweep_file")
    given = uploaded.getvalue().decode("utf-8", "replace") if uploaded else ""
    pasted = st.text_area(
        "or its text", given, height=220, key=f"sweep_text_{uploaded.file_id if uploaded else ''}"
    )
    return Sweep.from_text(pasted) if pasted and pasted.strip() else None
