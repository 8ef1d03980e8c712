"""From a figure for paper to its page: every setting applied, every size decided."""

from __future__ import annotations

import math

from backend.figures.drawing.strip import arrange, line_height, lines_of, strip_width
from backend.figures.drawing.text import legend_columns, letter_of
from backend.figures.heat_map import ColourScale
from backend.figures.page import Page, PagePanel, is_in_legend
from backend.figures.palette import Style
from backend.figures.paper.figure import Panel, PaperFigure
from backend.figures.paper.palettes import PALETTES
from backend.figures.paper.settings import PaperSettings, Scale
from backend.figures.spec import Axis, FigureSpec, Series

_MOST_COLUMNS = 3
_ROW_IN = 0.2
"""Height of one named row of a panel: a bar, a method, a row of a heat map."""
_LINE = 1.5
"""Height of a line of text, in font sizes."""


def to_page(figure: PaperFigure) -> Page:
    """Return the page of a figure, which both paper renderers draw."""
    settings = figure.settings
    columns = min(len(figure.panels), settings.columns or _default_columns(figure))
    specs = [with_settings(_renamed(panel.spec, figure.labels), settings) for panel in figure.panels]
    if settings.shared_axes and len(specs) > 1:
        specs = _share_axes(specs, columns)
    panels = tuple(
        PagePanel(spec=spec, heading=_heading(figure, place, panel), in_legend=is_in_legend(spec))
        for place, (panel, spec) in enumerate(zip(figure.panels, specs, strict=True))
    )
    heights = _row_heights(panels, columns, settings)
    return Page(
        panels=panels,
        columns=columns,
        width_in=settings.width,
        height_in=settings.height_in or _round(sum(heights) + _around(figure, panels, settings)),
        row_heights=heights if len(set(heights)) > 1 else (),
        font_size=settings.font_size,
        line_width=settings.line_width,
        marker_size=settings.marker_size,
        grid=settings.grid,
        legend=settings.legend,
        title=figure.title if settings.title else "",
        dpi=settings.dpi,
    )


def with_settings(spec: FigureSpec, settings: PaperSettings) -> FigureSpec:
    """Return a figure spec with colours, axes and parts as the settings want them."""
    x, y = _directed(spec.x, settings), _directed(spec.y, settings)
    if spec.strip is not None:
        strip = spec.strip.model_copy(update={"scale": _recoloured(spec.strip.scale, settings)})
        return spec.model_copy(update={"strip": strip})
    if spec.heat is not None:
        heat = spec.heat.model_copy(update={"scale": _recoloured(spec.heat.scale, settings)})
        return spec.model_copy(update={"x": x, "y": y, "heat": heat})
    shown = [_drawn(series, settings) for series in spec.series]
    series = tuple(each for each in shown if each.x and (settings.front or each.kind != "front"))
    wanted = {"baseline": settings.baselines, "claim": settings.claims}
    return spec.model_copy(
        update={
            "x": _scaled(x, settings.x_scale, [value for each in series for value in each.x]),
            "y": _scaled(y, settings.y_scale, [value for each in series for value in each.y]),
            "series": series,
            "baselines": tuple(line for line in spec.baselines if wanted[line.role]),
        }
    )


def _recoloured(scale: ColourScale, settings: PaperSettings) -> ColourScale:
    kind = PALETTES[settings.palette].heat or scale.kind
    return scale.model_copy(update={"kind": kind, "better": scale.better if settings.directions else None})


def _renamed(spec: FigureSpec, labels: dict[str, str]) -> FigureSpec:
    series = tuple(s.model_copy(update={"label": labels.get(s.label, s.label)}) for s in spec.series)
    ticks = tuple((position, labels.get(text, text)) for position, text in spec.y.ticks)
    return spec.model_copy(update={"series": series, "y": spec.y.model_copy(update={"ticks": ticks})})


def _drawn(series: Series, settings: PaperSettings) -> Series:
    colour = PALETTES[settings.palette].colour(series.style.colour)
    changes: dict[str, object] = {
        "style": Style(colour=colour, marker=series.style.marker, dash=series.style.dash)
    }
    if not settings.error_bars:
        changes |= {"x_err": (), "y_err": ()}
    if not settings.markers and series.kind == "line":
        changes["kind"] = "curve"
    if not settings.dominated and any(series.faded):
        names = ("x", "y", "x_err", "y_err", "ids", "details", "hollow", "faded")
        kept = [i for i, faded in enumerate(series.faded) if not faded]
        for name in names:
            values = changes.get(name, getattr(series, name))
            changes[name] = tuple(values[i] for i in kept) if values else ()  # type: ignore[index]
    return series.model_copy(update=changes)


def _directed(axis: Axis, settings: PaperSettings) -> Axis:
    return axis if settings.directions else axis.model_copy(update={"better": None})


def _scaled(axis: Axis, scale: Scale, values: list[float]) -> Axis:
    """Return an axis with another scale; a logarithmic one begins at the least positive value."""
    positive = [value for value in values if value > 0]
    if scale == "figure" or axis.ticks or axis.log == (scale == "log") or not positive:
        return axis
    limits = axis.range
    if scale == "log" and limits is not None and limits[0] <= 0:
        limits = (min(positive) / 1.15, max(limits[1], max(positive)))
    return axis.model_copy(update={"log": scale == "log", "range": limits})


def _share_axes(specs: list[FigureSpec], columns: int) -> list[FigureSpec]:
    """Give panels of the same quantity one range, and its title to the outer panels only."""
    ranged = [_with_range(spec, specs) for spec in specs]
    shared = []
    for place, spec in enumerate(ranged):
        left = place % columns != 0 and _same(ranged[place - 1].y, spec.y)
        below = place + columns < len(ranged) and _same(ranged[place + columns].x, spec.x)
        changes = {"y": _bare(spec.y)} if left else {}
        changes |= {"x": _bare(spec.x)} if below else {}
        shared.append(spec.model_copy(update=changes))
    return shared


def _with_range(spec: FigureSpec, specs: list[FigureSpec]) -> FigureSpec:
    changes = {}
    for name in ("x", "y"):
        axis: Axis = getattr(spec, name)
        alike = [other for each in specs if _same(other := getattr(each, name), axis)]
        ranges = [other.range for other in alike if other.range]
        if axis.label and not axis.ticks and len(ranges) == len(alike):
            changes[name] = axis.model_copy(
                update={"range": (min(low for low, _ in ranges), max(high for _, high in ranges))}
            )
    return spec.model_copy(update=changes)


def _same(one: Axis, other: Axis) -> bool:
    return (one.title, one.log, one.ticks) == (other.title, other.log, other.ticks)


def _bare(axis: Axis) -> Axis:
    return axis.model_copy(update={"label": "", "unit": "", "better": None})


def _heading(figure: PaperFigure, place: int, panel: Panel) -> str:
    if len(figure.panels) == 1:
        return ""
    letter = f"({letter_of(place)})" if figure.settings.letters else ""
    return f"{letter} {panel.title if figure.settings.titles else ''}".strip()


def _default_columns(figure: PaperFigure) -> int:
    """Return how many panels stand in a row: narrow pages take one, four make a square."""
    if figure.settings.width < 4:
        return 1
    return 2 if len(figure.panels) in (2, 4) else _MOST_COLUMNS


def _row_heights(panels: tuple[PagePanel, ...], columns: int, settings: PaperSettings) -> tuple[float, ...]:
    width = settings.width / columns
    wanted = [_height(panel.spec, width, settings) + (0.2 if panel.heading else 0.0) for panel in panels]
    return tuple(max(wanted[i : i + columns]) for i in range(0, len(wanted), columns))


def _height(spec: FigureSpec, width: float, settings: PaperSettings) -> float:
    """Return the height in inches of a panel of some width, with its axis' labels."""
    labels = (3.5 if width > 4 else 4.7) * settings.font_size / 72  # narrow panels need two lines a title
    if spec.strip is not None:
        boxes = arrange(spec.strip.tokens, strip_width(width), settings.font_size)
        return max(1.0, 0.1 + lines_of(boxes) * line_height(settings.font_size))
    rows = len(spec.heat.rows) if spec.heat is not None else len(spec.y.ticks)
    if rows:
        low, high = (0.9, 3.2) if spec.heat is not None else (0.5, 4.0)
        return labels + min(max(_ROW_IN * rows, low), high)
    return labels + min(max(0.55 * width, 1.3), 2.5)


def _around(figure: PaperFigure, panels: tuple[PagePanel, ...], settings: PaperSettings) -> float:
    """Return the height in inches of the legend and the title."""
    line = _LINE * settings.font_size / 72
    title = line if settings.title else 0.0
    labels = list(dict.fromkeys(s.label for p in panels if p.in_legend for s in p.spec.series))
    if settings.legend not in ("below", "above") or len(labels) < 2:
        return title
    columns = legend_columns(labels, settings.width, settings.font_size - 1)
    return title + 0.1 + line * math.ceil(len(labels) / columns)


def _round(height: float) -> float:
    return round(height, 2)
