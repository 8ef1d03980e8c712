"""Routing traces on the page "Mixture of experts": import of a file, export of what is shown."""

from __future__ import annotations

import streamlit as st

from backend.errors import UserError
from backend.experiments.routing_records import RoutingInfo, find_routing, import_trace, remove_imported
from backend.figures.moe import RoutingSource
from backend.residency import RoutingRecord, route_trace_lines
from pages._shared.moe_controls import Caches
from pages._shared.store import OpenStore

_GIVEN = "moe_imported"
_PROBLEM = "moe_error"
SHOWN = "routing"
"""The key of the control that chooses whose routing is shown."""


def show_problem() -> None:
    """Show once why the last removal failed."""
    if (sentence := st.session_state.pop(_PROBLEM, None)) is not None:
        st.error(sentence, icon=":material/error:")


def trace_import(opened: OpenStore) -> None:
    """Show the upload of a trace; one that is taken in is shown at once."""
    with st.popover("Import a trace", icon=":material/upload:", key="trace_import"):
        _upload(opened)


def _upload(opened: OpenStore) -> None:
    uploaded = st.file_uploader(
        "A routing trace (`route_trace v1`, CSV)", ["csv"], key="trace_file", max_upload_size=10,
        help="First line `# route_trace v1`, then rows with at least phase, step, layer, slot and expert. "
        "It stays on this machine, in this home.",
    )  # fmt: skip
    if uploaded is None or st.session_state.get(_GIVEN) == uploaded.file_id:
        return
    try:
        with st.spinner("Walking the trace at every cache size …"):
            info = find_routing(opened.home, import_trace(opened.home, uploaded.name, uploaded.getvalue()))
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return
    st.session_state[_GIVEN] = uploaded.file_id
    st.session_state["moe_show"] = info.cell_id
    st.rerun()


def trace_export(opened: OpenStore, source: RoutingSource, record: RoutingRecord, caches: Caches) -> None:
    """Show the download of what is shown as a trace, and the removal of an imported one."""
    info = source.original
    with st.container(horizontal=True, vertical_alignment="center"):
        if record.routings:
            st.download_button(
                "Export as a trace", lambda: _csv(record, caches), f"{_file_name(source)}.csv", "text/csv",
                icon=":material/download:", key="trace_export", on_click="ignore",
                help=f"`route_trace v1`, {record.tokens_kept:,} tokens; residency is that of a cache of "
                f"{caches.slots} experts a layer under {caches.rule.upper()}.",
            )  # fmt: skip
        if info is not None and info.imported:
            st.button(
                "Remove this trace", icon=":material/delete:", key="trace_remove", on_click=_remove,
                args=(info,),
            )  # fmt: skip
    if info is not None:
        st.caption(
            f"`python -m backend export-trace {info.imported or info.cell_id} -o trace.csv --slots "
            f"{caches.slots}` writes the same; `python -m backend import-trace FILE` takes one in."
        )


def _csv(record: RoutingRecord, caches: Caches) -> bytes:
    lines = route_trace_lines(record, max(caches.slots, record.experts_per_token), caches.rule)
    return ("\n".join(lines) + "\n").encode()


def _remove(info: RoutingInfo) -> None:
    try:
        remove_imported(info)
    except UserError as error:
        st.session_state[_PROBLEM] = str(error)


def _file_name(source: RoutingSource) -> str:
    name = source.model or source.label.removesuffix(" (imported trace)").removesuffix(".csv")
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name) + "-trace"
