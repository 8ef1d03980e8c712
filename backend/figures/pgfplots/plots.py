"""Series, bars, baselines and heat maps as PGFPlots commands."""

from __future__ import annotations

from backend.figures.drawing.marks import BAR_WIDTH, DASHES, GREY
from backend.figures.drawing.scales import colour_at, ink_on, limits
from backend.figures.drawing.strip import arrange, line_height
from backend.figures.heat_map import HeatMap
from backend.figures.page import Page
from backend.figures.pgfplots.data import Window, keys_of
from backend.figures.spec import Baseline, FigureSpec, Series
from backend.figures.tables.latex import latex_escape
from backend.figures.token_strip import TokenStrip

_MARKS = {
    "circle": "*", "square": "square*", "triangle-up": "triangle*", "diamond": "diamond*",
    "triangle-down": "triangle*", "x": "x", "cross": "+", "star": "asterisk",
}  # fmt: skip


def colour(hexadecimal: str) -> str:
    """Return a colour as xcolor takes it without a definition."""
    red, green, blue = (int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return f"{{rgb,1:red,{red:.4f};green,{green:.4f};blue,{blue:.4f}}}"


def plots(spec: FigureSpec, file: str, columns: list[str], window: Window, page: Page) -> list[str]:
    """Return the commands that draw a panel's series.

    Args:
        spec: The panel.
        file: Its CSV.
        columns: The CSV's columns.
        window: What the panel shows.
        page: The page, for sizes.
    """
    lines = [_baseline(each, window) for each in spec.baselines if _is_seen(each, window)]
    ends: dict[float, float] = {}
    for key, series in zip(keys_of(spec), spec.series, strict=True):
        if series.kind == "bar":
            lines += _bars(series, ends)
            continue
        lines += _line(key, series, file, columns, page)
        if series.kind not in ("curve", "front"):
            lines += _marks(key, series, file, columns, page)
    return lines


def legend_image(series: Series, page: Page) -> str:
    """Return the options of a series' entry in the legend."""
    if series.kind == "bar":
        return f"area legend, fill={colour(series.style.colour)}, draw=white"
    if series.kind == "front":
        return _line_look(series, page)
    look = "only marks" if series.kind == "markers" else _line_look(series, page)
    return look if series.kind == "curve" else f"{look}, {_mark_look(series, page)}"


def cells(heat: HeatMap) -> list[str]:
    """Return the commands that fill a heat map's cells."""
    low, high = limits(heat.scale, heat.values)
    lines = []
    for row, values in enumerate(heat.values):
        for column, value in enumerate(values):
            if value is not None:
                fill = _rgb(colour_at(heat.scale.kind, (value - low) / (high - low)))
                lines.append(_rectangle(fill, column - 0.5, row - 0.5, column + 0.5, row + 0.5))
    return lines


def tokens(strip: TokenStrip, corner: tuple[float, float], width_in: float, font_size: float) -> list[str]:
    """Return the commands that write a token strip.

    Args:
        strip: The tokens.
        corner: Its upper left corner on the page, inches.
        width_in: Width of its lines, inches.
        font_size: Points.
    """
    low, high = limits(strip.scale, [strip.values])
    height = line_height(font_size)
    lines = []
    for box, value in zip(arrange(strip.tokens, width_in, font_size), strip.values, strict=True):
        left, top = corner[0] + box.left_in, corner[1] - box.line * height
        ink = "#000000"
        if value is not None:
            shade = colour_at(strip.scale.kind, (value - low) / (high - low))
            ink = ink_on(shade)
            ends = f"({left:.5f}in,{top - 0.92 * height:.5f}in) rectangle "
            ends += f"({left + box.width_in:.5f}in,{top - 0.08 * height:.5f}in)"
            lines.append(rf"\path [fill={_rgb(shade)}, draw=white, line width=0.4pt] {ends};")
        place = f"({left + 0.01:.5f}in,{top - 0.68 * height:.5f}in)"
        font = rf"\fontsize{{{font_size:g}pt}}{{{font_size:g}pt}}\selectfont"
        look = f"anchor=base west, inner sep=0pt, text={colour(ink)}, font={font}"
        text = latex_escape(box.text).replace(" ", "~")
        lines.append(rf"\node [{look}] at {place} {{{text}}};")
    return lines


def colour_bar(kind: str, low: float, high: float, steps: int = 64) -> list[str]:
    """Return the commands that fill a colour bar, from 0 to 1 across and from low to high."""
    height = (high - low) / steps
    lines = []
    for i in range(steps):
        fill = _rgb(colour_at(kind, i / (steps - 1)))
        lines.append(_rectangle(fill, 0, low + i * height, 1, low + (i + 1) * height))
    return lines


def _line(key: str, series: Series, file: str, columns: list[str], page: Page) -> list[str]:
    if series.kind == "markers":
        return []
    cut = f"{key}_line_x" in columns
    if series.kind == "front" and not cut:
        return []
    x, y = (f"{key}_line_x", f"{key}_line_y") if cut else (f"{key}_x", f"{key}_y")
    look = _line_look(series, page)
    return [rf"\addplot [forget plot, no marks, {look}] table [x={x}, y={y}, col sep=comma] {{{file}}};"]


def _marks(key: str, series: Series, file: str, columns: list[str], page: Page) -> list[str]:
    """Return the points with their errors, then over them those that are dominated or interpolated."""
    common = "forget plot, only marks"
    y = f"{key}_seen_y" if f"{key}_seen_y" in columns else f"{key}_y"
    errors = {axis: f"{key}_{axis}err" for axis in "xy" if f"{key}_{axis}err" in columns}
    bars = "".join(f", error bars/{axis} dir=both, error bars/{axis} explicit" for axis in errors)
    table = "".join(f", {axis} error={column}" for axis, column in errors.items())
    look = f"error bars/error bar style={{solid, line width={0.7 * page.line_width:g}pt}}"
    look += f", error bars/error mark options={{rotate=90, mark size={page.marker_size / 4:g}pt}}"
    lines = [
        rf"\addplot [{common}, {_mark_look(series, page)}{bars}, {look}] "
        rf"table [x={key}_x, y={y}{table}, col sep=comma] {{{file}}};"
    ]
    for name, draw, fill in (
        ("dominated", colour(GREY), colour(GREY)),
        ("interpolated", colour(series.style.colour), "white"),
    ):
        if f"{key}_{name}" in columns:
            lines.append(
                rf"\addplot [{common}, {_mark_look(series, page, draw, fill)}] "
                rf"table [x={key}_x, y={key}_{name}, col sep=comma] {{{file}}};"
            )
    return lines


def _line_look(series: Series, page: Page) -> str:
    if series.kind == "front":
        look = f"color={colour(series.style.colour)}, opacity=0.35, no marks"
        return f"{look}, line width={4 * page.line_width:g}pt"
    dash = DASHES[series.style.dash]
    pattern = "solid"
    if dash != "-":
        lengths = [f"{length * page.line_width:g}pt" for length in dash[1]]
        words = [f"{'on' if i % 2 == 0 else 'off'} {length}" for i, length in enumerate(lengths)]
        pattern = f"dash pattern={' '.join(words)}"
    return f"color={colour(series.style.colour)}, {pattern}, line width={page.line_width:g}pt"


def _mark_look(series: Series, page: Page, draw: str = "", fill: str = "") -> str:
    draw = draw or colour(series.style.colour)
    turn = ", rotate=180" if series.style.marker == "triangle-down" else ""
    options = f"solid, draw={draw}, fill={fill or draw}, line width={0.8 * page.line_width:g}pt{turn}"
    mark = _MARKS[series.style.marker]
    return f"color={draw}, mark={mark}, mark size={page.marker_size / 2:g}pt, mark options={{{options}}}"


def _bars(series: Series, ends: dict[float, float]) -> list[str]:
    lines = []
    for length, row in zip(series.x, series.y, strict=True):
        start = ends.get(row, 0.0)
        ends[row] = start + length
        half = BAR_WIDTH / 2
        fill = colour(series.style.colour)
        lines.append(_rectangle(fill, start, row - half, start + length, row + half, "white"))
    return lines


def _is_seen(baseline: Baseline, window: Window) -> bool:
    low, high = sorted(window.x if baseline.axis == "x" else window.y)
    return low <= baseline.value <= high


def _baseline(baseline: Baseline, window: Window) -> str:
    claim = baseline.role == "claim"
    dash = "densely dotted" if claim else "dashed"
    name = latex_escape(baseline.label)
    if baseline.axis == "y":
        (x0, x1), value = window.x, baseline.value
        ends = f"(axis cs:{x0:.10g},{value:.10g}) -- (axis cs:{x1:.10g},{value:.10g})"
        place_on = window.place((x1, value))
        side = "north" if place_on is not None and place_on[1] > 0.9 else "south"
        place = f"pos=1, anchor={side} east" if claim else f"pos=0, anchor={side} west"
    else:
        (y0, y1), value = window.y, baseline.value
        ends = f"(axis cs:{value:.10g},{y0:.10g}) -- (axis cs:{value:.10g},{y1:.10g})"
        place = "pos=1, anchor=north east" if claim else "pos=1, anchor=north west"
    return rf"\draw [{dash}, line width=0.5pt] {ends} node [{place}, inner sep=2pt] {{{name}}};"


def _rectangle(fill: str, x0: float, y0: float, x1: float, y1: float, draw: str = "none") -> str:
    return (
        rf"\path [fill={fill}, draw={draw}] (axis cs:{x0:.10g},{y0:.10g}) "
        rf"rectangle (axis cs:{x1:.10g},{y1:.10g});"
    )


def _rgb(parts: tuple[float, float, float]) -> str:
    return "{{rgb,1:red,{:.4f};green,{:.4f};blue,{:.4f}}}".format(*parts)
