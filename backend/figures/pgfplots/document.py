"""The TeX around the plots: one tikzpicture of exact width, and a document that compiles it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from backend.figures.drawing.marks import GRID
from backend.figures.drawing.page import arranged, panel_room
from backend.figures.drawing.scales import MISSING
from backend.figures.drawing.strip import strip_width
from backend.figures.drawing.text import legend_columns, letter_of
from backend.figures.page import Page
from backend.figures.pgfplots.data import Window, panel_frame
from backend.figures.pgfplots.plots import cells, colour, colour_bar, legend_image, plots, tokens
from backend.figures.spec import Series
from backend.figures.tables.latex import latex_escape

PREAMBLE = r"\usepackage{pgfplots}\pgfplotsset{compat=1.16}"


def to_pgfplots(page: Page, stem: str) -> dict[str, bytes]:
    r"""Return the files of a page as PGFPlots, by name.

    ``<stem>.tex`` is a tikzpicture to ``\input``; ``<stem>-standalone.tex`` compiles it alone; a CSV for each
    panel holds its data. Places are those of Matplotlib's layout.

    Args:
        page: What to draw.
        stem: The files' name.
    """
    figure = arranged(page)
    count = len(page.panels)
    files: dict[str, bytes] = {}
    lines = [
        "% Made by Sparsity Lens. Needs in the preamble:",
        f"%   {PREAMBLE}",
        r"\begin{tikzpicture}",
        rf"\path [use as bounding box] (0,0) rectangle ({page.width_in:g}in,{page.height_in:g}in);",
    ]
    grid = -(-count // page.columns) * page.columns
    bars = iter(figure.axes[grid:])
    for place, panel in enumerate(page.panels):
        name = f"{stem}.csv" if count == 1 else f"{stem}-{letter_of(place)}.csv"
        axes = figure.axes[place]
        window = _window(axes)
        frame = panel_frame(panel.spec, window)
        files[name] = _csv(frame)
        options, entries = _legend(page, figure) if place == 0 else ([], [])
        lines += _begin([*_axis_options(page, place, axes, window), *options]) + entries
        if panel.spec.heat is not None:
            lines += cells(panel.spec.heat)
        elif panel.spec.strip is None:
            lines += plots(panel.spec, name, list(frame.columns), window, page)
        lines.append(r"\end{axis}")
        if panel.spec.strip is not None:
            box, width_in = axes.get_position(), strip_width(panel_room(page, place)[0])
            corner = (box.x0 * page.width_in, box.y1 * page.height_in)
            lines += tokens(panel.spec.strip, corner, width_in, page.font_size)
        if (coloured := panel.spec.heat or panel.spec.strip) is not None:
            axes = next(bars)
            lines += _bar_axis(page, axes, colour_bar(coloured.scale.kind, *axes.get_ylim()))
    if page.title:
        look = f"anchor=north, font={_font(page.font_size + 1)}"
        place_in = f"({page.width_in / 2:g}in,{page.height_in:g}in)"
        lines.append(rf"\node [{look}] at {place_in} {{{latex_escape(page.title)}}};")
    lines += [r"\end{tikzpicture}%", ""]
    files[f"{stem}.tex"] = "\n".join(lines).encode()
    files[f"{stem}-standalone.tex"] = _standalone(stem)
    return files


def _axis_options(page: Page, place: int, axes: Any, window: Window) -> list[str]:
    panel = page.panels[place]
    spec = panel.spec
    options = [
        *_box(page, axes),
        *(f"{name}mode=log" for name, log in (("x", window.x_log), ("y", window.y_log)) if log),
        *_ticks(axes),
        f"xlabel={{{_text(axes.get_xlabel())}}}",
        f"ylabel={{{_text(axes.get_ylabel())}}}",
        "label style={align=center, inner sep=1.5pt}",
        "unbounded coords=jump",
    ]
    if panel.heading:
        options += [
            f"title={{{_text(axes.get_title(loc='left'))}}}",
            "title style={at={(0,1)}, anchor=south west, align=left, inner xsep=0pt, inner ysep=3pt}",
        ]
    if spec.strip is not None:
        return [*options, "hide axis", "clip=false"]
    if spec.heat is not None:
        ground = f"axis background/.style={{fill={colour(MISSING)}}}"
        return [*options, "axis line style={draw=none}", "tick style={draw=none}", ground]
    options += ["axis x line*=bottom", "axis y line*=left", "axis line style={line width=0.6pt}"]
    options += ["clip mode=individual", "minor tick style={draw=none}"]
    if page.grid != "none":
        names = ("x", "y") if page.grid == "both" else (page.grid,)
        options += [f"{name}majorgrids" for name in names]
        options.append(f"grid style={{color={colour(GRID)}, line width=0.5pt}}")
    return options


def _bar_axis(page: Page, axes: Any, fills: list[str]) -> list[str]:
    options = [
        *_box(page, axes),
        *_ticks(axes, "y"),
        "xtick=\\empty",
        "ytick pos=right",
        f"ylabel={{{_text(axes.get_ylabel())}}}",
        "label style={align=center, inner sep=1.5pt}",
        "axis line style={draw=none}",
    ]
    return [*_begin(options), *fills, r"\end{axis}"]


def _box(page: Page, axes: Any) -> list[str]:
    """Return options that put an axis where Matplotlib has it, with the same limits and fonts."""
    box = axes.get_position()
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    return [
        f"at={{({box.x0 * page.width_in:.5f}in,{box.y0 * page.height_in:.5f}in)}}",
        "anchor=south west",
        "scale only axis",
        f"width={box.width * page.width_in:.5f}in",
        f"height={box.height * page.height_in:.5f}in",
        f"xmin={min(x0, x1):.10g}",
        f"xmax={max(x0, x1):.10g}",
        f"ymin={min(y0, y1):.10g}",
        f"ymax={max(y0, y1):.10g}",
        *(["y dir=reverse"] if y0 > y1 else []),
        f"font={_font(page.font_size)}",
        f"tick label style={{font={_font(page.font_size - 1)}, inner sep=2pt}}",
        "major tick length=3pt",
        "tick align=outside",
        "tick style={color=black, line width=0.6pt}",
        "minor tick num=0",
        "scaled ticks=false",
    ]


def _ticks(axes: Any, names: str = "xy") -> list[str]:
    """Return the ticks that Matplotlib shows, with their texts."""
    options = []
    for name in names:
        ruler, limits = getattr(axes, f"{name}axis"), sorted(getattr(axes, f"get_{name}lim")())
        shown = [
            (tick, label.get_text())
            for tick, label in zip(ruler.get_majorticklocs(), ruler.get_ticklabels(), strict=False)
            if limits[0] <= tick <= limits[1] and label.get_text()
        ]
        options.append(
            f"{name}tick={{{','.join(f'{tick:.10g}' for tick, _ in shown)}}}"
            if shown
            else f"{name}tick=\\empty"
        )
        if shown:
            texts = ",".join(f"{{{latex_escape(text)}}}" for _, text in shown)
            options.append(f"{name}ticklabels={{{texts}}}")
            if turned := ruler.get_ticklabels()[0].get_rotation():
                options.append(f"{name}ticklabel style={{rotate={turned:g}, anchor=north east}}")
    return options


def _legend(page: Page, figure: Any) -> tuple[list[str], list[str]]:
    """Return the first axis' options for the one legend, at its place on the page, and its entries."""
    axes = figure.axes[0]
    entries: dict[str, Series] = {}
    for panel in page.panels:
        for series in panel.spec.series if panel.in_legend else ():
            entries.setdefault(series.label, series)
    drawn = next(
        iter([*figure.legends, *(each.get_legend() for each in figure.axes if each.get_legend())]), None
    )
    if drawn is None:
        return [], []
    names = list(entries)
    one = page.legend in ("right", "inside")
    columns = 1 if one else legend_columns(names, page.width_in, page.font_size - 1)
    rows = -(-len(names) // columns)
    box, room = drawn.get_window_extent(), axes.get_window_extent()
    x, y = ((box.x0 + box.x1) / 2 - room.x0) / room.width, ((box.y0 + box.y1) / 2 - room.y0) / room.height
    style = (
        f"at={{({x:.5f},{y:.5f})}}, anchor=center, draw=none, fill=none, font={_font(page.font_size - 1)}, "
        "cells={anchor=west}, /tikz/every even column/.append style={column sep=8pt}"
    )
    lines = []
    # PGFPlots fills row by row, the page column by column.
    for place in (column * rows + row for row in range(rows) for column in range(columns)):
        if place < len(names):
            image = legend_image(entries[names[place]], page)
            lines.append(rf"\addlegendimage{{{image}}} \addlegendentry{{{latex_escape(names[place])}}}")
        else:
            lines.append(r"\addlegendimage{empty legend} \addlegendentry{}")
    return [f"legend columns={columns}", f"legend style={{{style}}}"], lines


def _window(axes: Any) -> Window:
    x, y = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    return Window((x[0], x[1]), (y[0], y[1]), axes.get_xscale() == "log", axes.get_yscale() == "log")


def _begin(options: list[str]) -> list[str]:
    return [r"\begin{axis}[", *(f"  {option}," for option in options), "]"]


def _font(size: float) -> str:
    return rf"\fontsize{{{size:g}pt}}{{{1.2 * size:g}pt}}\selectfont"


def _text(text: str) -> str:
    return r" \\ ".join(latex_escape(line) for line in text.split("\n"))


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, na_rep="nan", lineterminator="\n").encode()


def _standalone(stem: str) -> bytes:
    lines = [
        r"\documentclass[border=0pt]{standalone}",
        PREAMBLE,
        r"\usepackage{mathptmx}",
        r"\begin{document}",
        rf"\input{{{stem}.tex}}",
        r"\end{document}",
        "",
    ]
    return "\n".join(lines).encode()
