"""A page of panels for the screen: one interactive HTML file that needs nothing from the network."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go

from backend.figures.page import Page
from backend.figures.plotly_renderer import CONFIG, to_plotly

_ROW = 440
"""Height of a row of panels, pixels."""
_GAP, _ROW_GAP = 0.1, 0.16
"""Room between panels, in shares of the whole."""


def page_to_html(page: Page, title: str) -> bytes:
    """Return a page as one HTML file (about 5 MB, with Plotly).

    Args:
        page: The panels.
        title: Stands above them.
    """
    text: str = page_to_plotly(page, title).to_html(
        include_plotlyjs=True, full_html=True, config=CONFIG, div_id="figure"
    )
    return text.encode()


def page_to_plotly(page: Page, title: str) -> go.Figure:
    """Return a page as one Plotly figure; arguments as for :func:`page_to_html`."""
    rows = -(-len(page.panels) // page.columns)
    traces: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"shapes": [], "annotations": []}
    named: set[str] = set()
    for place, panel in enumerate(page.panels):
        drawn = to_plotly(panel.spec).to_plotly_json()
        suffix = str(place + 1) if place else ""
        across, down = _domains(place, page.columns, rows)
        own = drawn["layout"]
        layout[f"xaxis{suffix}"] = own["xaxis"] | {"domain": across, "anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = own["yaxis"] | {"domain": down, "anchor": f"x{suffix}"}
        for part in ("shapes", "annotations"):
            layout[part] += [_moved(each, suffix) for each in own.get(part, ())]
        if panel.heading:
            layout["annotations"].append(_heading(panel.heading, across[0], down[1]))
        for trace in drawn["data"]:
            first = trace["name"] not in named and panel.in_legend
            named.add(trace["name"])
            shared: dict[str, Any] = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
            if trace["type"] == "heatmap":
                bar = {"x": across[1], "y": sum(down) / 2, "len": down[1] - down[0]}
                shared["colorbar"] = trace["colorbar"] | bar
            elif panel.spec.strip is not None:
                bar = {"x": across[1], "y": sum(down) / 2, "len": down[1] - down[0]}
                shared["marker"] = trace["marker"] | {"colorbar": trace["marker"]["colorbar"] | bar}
            else:
                shared |= {"legendgroup": trace["name"], "showlegend": first}
            traces.append(trace | shared)
    layout |= {
        "title": {"text": html.escape(title)},
        "template": "plotly_white",
        "barmode": "stack",
        "height": 140 + _ROW * rows,
        "legend": {"orientation": "h", "y": -0.24 / rows, "yanchor": "top"},
    }
    return go.Figure({"data": traces, "layout": layout})


def _domains(place: int, columns: int, rows: int) -> tuple[list[float], list[float]]:
    """Return where a panel stands, in shares of the figure from the left and from below."""
    row, column = divmod(place, columns)
    width, height = (1 - _GAP * (columns - 1)) / columns, (1 - _ROW_GAP * (rows - 1)) / rows
    left, low = column * (width + _GAP), 1 - row * (height + _ROW_GAP) - height
    return [round(left, 6), round(left + width, 6)], [round(max(low, 0.0), 6), round(low + height, 6)]


def _moved(part: dict[str, Any], suffix: str) -> dict[str, Any]:
    """Return a shape or a note of one panel for its place among others."""
    moved = dict(part)
    for name in ("x", "y"):
        reference = str(part.get(f"{name}ref", name))
        moved[f"{name}ref"] = reference.replace(name, f"{name}{suffix}", 1)
    return moved


def _heading(text: str, left: float, top: float) -> dict[str, Any]:
    return {
        "text": html.escape(text), "x": left, "y": top, "xref": "paper", "yref": "paper", "showarrow": False,
        "xanchor": "left", "yanchor": "bottom", "font": {"size": 14},
    }  # fmt: skip
