"""The figure's title and its panels: their order, their titles, and taking one away."""

from __future__ import annotations

import streamlit as st

from backend.figures.drawing.text import letter_of
from backend.figures.paper import Panel, PaperFigure
from pages._shared.paper_controls import seeded_text


def title_field(figure: PaperFigure) -> str:
    """Show the figure's title and return what it is to be."""
    help = "What the figure is; its files are named after it."
    return (
        seeded_text("Title", "title_text", figure.title, help=help, width=420, max_chars=200) or figure.title
    )


def panels_section(figure: PaperFigure) -> tuple[Panel, ...]:
    """Show the panels; return them as they are to be: in another order, with other titles, without one."""
    panels = figure.panels
    if len(panels) == 1:
        st.caption(
            "One panel. **Add as panel** under any figure of the other pages adds another, as the form below."
        )
        return panels
    changed = []
    order = list(range(len(panels)))
    for place, panel in enumerate(panels):
        with st.container(horizontal=True, vertical_alignment="bottom", key=f"paper_panel_{place}"):
            label = f"Title of panel ({letter_of(place)})"
            title = seeded_text(label, f"heading_{place}", panel.title, width=420, max_chars=200)
            changed.append(panel.model_copy(update={"title": title}))
            if _act("Up", "arrow_upward", place, disabled=place == 0):
                order[place - 1], order[place] = place, place - 1
            if _act("Down", "arrow_downward", place, disabled=place == len(panels) - 1):
                order[place], order[place + 1] = place + 1, place
            if _act("Remove", "delete", place):
                order.remove(place)
    return tuple(changed[place] for place in order)


def _act(label: str, icon: str, place: int, *, disabled: bool = False) -> bool:
    return bool(
        st.button(
            label,
            icon=f":material/{icon}:",
            key=f"paper_{label.lower()}_{place}",
            disabled=disabled,
            type="tertiary",
            help=f"{label}: panel ({letter_of(place)})",
        )
    )
