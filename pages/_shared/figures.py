"""A figure on a page: the chart with its alternative text, its note, its data, and its exports."""

from __future__ import annotations

import re
from typing import Any, Literal

import streamlit as st

from backend.figures import FigureSpec, matplotlib_renderer, plotly_renderer
from pages._shared.to_paper import to_paper

WIDTHS = {
    "NeurIPS, ICLR (5.5 in)": 5.5,
    "ICML, CVPR column (3.25 in)": 3.25,
    "ICML page (6.75 in)": 6.75,
    "TMLR (6.5 in)": 6.5,
}
"""Widths of figures by venue, in inches."""


def is_dark() -> bool:
    """Tell whether the page is shown in the dark theme."""
    return bool(st.context.theme.type == "dark")


def show_figure(
    spec: FigureSpec,
    key: str,
    *,
    height: int = 480,
    legend: bool = True,
    paper: tuple[float, float] = (5.5, 3.4),
    **more: Any,
) -> Any:
    """Draw a figure with its note, and below it its data and downloads.

    Args:
        spec: The figure.
        key: Names it on its page.
        height: Pixels.
        legend: Whether the chart has a legend.
        paper: Width and height of the exported figure in inches.
        **more: Passed to ``st.plotly_chart`` (``on_select`` and its kind).

    Returns:
        What ``st.plotly_chart`` returns: the selection if there is one.
    """
    chart = plotly_renderer.to_plotly(spec, dark=is_dark(), height=height, legend=legend)
    event = st.plotly_chart(chart, key=key, config=plotly_renderer.CONFIG, alt=spec.alt(), **more)
    if spec.note:
        st.caption(spec.note)
    with st.container(horizontal=True, vertical_alignment="center", key=f"{key}_below"):
        with st.popover("Data", icon=":material/table:", key=f"{key}_data", on_change="rerun") as data:
            if data.open:
                known = spec.titled_frame().dropna(axis=1, how="all")
                st.dataframe(known, hide_index=True, width=640, alt=f"Data of the figure: {spec.title}")
        with st.popover(
            "Export", icon=":material/download:", key=f"{key}_export", on_change="rerun"
        ) as export:
            if export.open:
                _exports(spec, key, paper)
        to_paper(spec, key)
    return event


def _exports(spec: FigureSpec, key: str, paper: tuple[float, float]) -> None:
    name = _file_name(spec.title)
    default = next((venue for venue, inches in WIDTHS.items() if inches == paper[0]), next(iter(WIDTHS)))
    venue = st.selectbox(
        "Width on paper", list(WIDTHS), index=list(WIDTHS).index(default), key=f"{key}_width"
    )
    width = WIDTHS[venue]
    height = round(paper[1] * (width / paper[0]) ** 0.5, 2)  # a wide figure need not be as much taller
    st.caption(f"{width:g} × {height:g} inches, 8 pt, fonts embedded.")

    def drawn(format: Literal["pdf", "svg", "png"]) -> bytes:
        return matplotlib_renderer.to_bytes(spec, format, width=width, height=height)

    def button(label: str, ending: str, mime: str, content: Any) -> None:
        st.download_button(
            label,
            content,
            f"{name}.{ending}",
            mime,
            key=f"{key}_{ending}",
            on_click="ignore",
            width="stretch",
        )

    button("PDF", "pdf", "application/pdf", lambda: drawn("pdf"))
    button("SVG", "svg", "image/svg+xml", lambda: drawn("svg"))
    button("PNG, 300 dpi", "png", "image/png", lambda: drawn("png"))
    button("Data as CSV", "csv", "text/csv", spec.csv)
    button("Figure spec (JSON)", "json", "application/json", lambda: spec.model_dump_json(indent=1).encode())
    button("Interactive HTML", "html", "text/html", lambda: plotly_renderer.to_html(spec))


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
