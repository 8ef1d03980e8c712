"""Draws a token strip for the screen, with Plotly; hovering tells each token's value."""

from __future__ import annotations

import html
from typing import Any

from backend.figures.drawing.scales import STOPS, colour_at, ink_on, limits, rgb_text
from backend.figures.drawing.strip import Box, arrange, lines_of
from backend.figures.drawing.text import short
from backend.figures.token_strip import TokenStrip

_WIDTH_IN, _POINTS = 7.0, 9.0
"""Lines as on a page of seven inches; the screen scales them."""


def strip_trace(strip: TokenStrip, dark: bool) -> dict[str, Any]:
    """Return the tokens' texts, which carry their values and the colour bar."""
    low, high = limits(strip.scale, [strip.values])
    boxes, stops = _boxes(strip), STOPS[strip.scale.kind]
    plain = "#EDEBE8" if dark else "#161514"
    inks = [
        plain if value is None else ink_on(colour_at(strip.scale.kind, (value - low) / (high - low)))
        for value in strip.values
    ]
    pairs = zip(boxes, strip.values, strict=True)
    unit = f" {strip.scale.unit}" if strip.scale.unit else ""
    hovers = [f"{box.text}: " + ("no value" if v is None else f"{short(v)}{unit}") for box, v in pairs]
    return {
        "type": "scatter",
        "name": html.escape(strip.scale.label),
        "mode": "markers+text",
        "showlegend": False,
        "x": [box.left_in + box.width_in / 2 for box in boxes],
        "y": [box.line + 0.5 for box in boxes],
        "text": [html.escape(box.text) for box in boxes],
        "textfont": {"size": 13, "color": inks},
        "hovertext": [html.escape(hover) for hover in hovers],
        "hoverinfo": "text",
        "customdata": list(strip.values),
        "marker": {
            "size": 1, "opacity": 0, "cmin": low, "cmax": high,
            "color": [low if value is None else value for value in strip.values],
            "colorscale": [[i / (len(stops) - 1), stop] for i, stop in enumerate(stops)],
            "showscale": True,
            "colorbar": {
                "title": {"text": html.escape(strip.scale.title), "side": "right"},
                "outlinewidth": 0, "thickness": 14, "tickfont": {"color": plain},
            },
        },
    }  # fmt: skip


def strip_layout(strip: TokenStrip, dark: bool) -> dict[str, Any]:
    """Return the coloured boxes and axes that nobody sees."""
    low, high = limits(strip.scale, [strip.values])
    boxes = _boxes(strip)
    shapes = [
        {
            "type": "rect", "layer": "below", "xref": "x", "yref": "y", "line": {"width": 0},
            "x0": box.left_in, "x1": box.left_in + box.width_in, "y0": box.line + 0.06, "y1": box.line + 0.94,
            "fillcolor": rgb_text(colour_at(strip.scale.kind, (value - low) / (high - low))),
        }
        for box, value in zip(boxes, strip.values, strict=True)
        if value is not None
    ]  # fmt: skip
    hidden = {"visible": False}
    return {
        "shapes": shapes,
        "xaxis": {**hidden, "range": [0, _WIDTH_IN]},
        "yaxis": {**hidden, "range": [lines_of(boxes), 0]},
    }


def _boxes(strip: TokenStrip) -> list[Box]:
    return arrange(strip.tokens, _WIDTH_IN, _POINTS)
