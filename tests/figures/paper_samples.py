"""Made-up figures for tests of export: awkward names, every kind of series, several panels."""

from __future__ import annotations

import math

from backend.figures import (
    Axis,
    Baseline,
    ColourScale,
    FigureSpec,
    HeatMap,
    Provenance,
    Series,
    TokenStrip,
    style_of,
)
from backend.figures.palette import COLOURS, DASHES, MARKERS, Style
from backend.figures.paper import PaperFigure

EVIL = r"50% of A_b & C ± #1 $x$ {y} ~^\<z>"


def curves_spec(count: int = 3, points: int = 6, **more: object) -> FigureSpec:
    """Return lines with errors, dominated, interpolated and far points, a front and two lines across."""
    names = ["dip", "gate_pruning", "up_pruning"]
    xs = tuple((i + 1) / points for i in range(points))
    series = [
        Series(
            name=names[n] if n < 3 else f"series-{n}",
            label=EVIL if n == 1 else f"Method {n}",
            style=style_of(names[n])
            if n < 3
            else Style(colour=COLOURS[n % 7], marker=MARKERS[n % 8], dash=DASHES[n % 6]),
            x=xs,
            y=tuple(20 + 10 * math.exp(-3 * x) * (1 + n) + (1e5 if i == 0 else 0) for i, x in enumerate(xs)),
            y_err=tuple(None if i == 1 else 0.3 for i in range(points)),
            ids=tuple(f"cell{n}{i}" for i in range(points)),
            faded=tuple(n == 1 and i % 2 == 0 for i in range(points)),
            hollow=tuple(n == 2 and i == 3 for i in range(points)),
        )
        for n in range(count)
    ]
    front = Series(
        name="front", label="Pareto front", style=style_of("none"), kind="front", x=xs, y=series[0].y
    )
    return FigureSpec(
        title="Quality",
        x=Axis(label="Density", unit="share", better="lower", range=(0.0, 1.1)),
        y=Axis(label="Perplexity", better="lower", range=(18.0, 40.0)),
        series=(front, *series),
        baselines=(Baseline(value=20.0, label="Dense"), Baseline(value=30.0, label="Claim", role="claim")),
        note="Made up.",
        provenance=Provenance(runs=("run-1",), filters={"model": "test"}, how=("measured",)),
        **more,
    )  # type: ignore[arg-type]


def bars_spec() -> FigureSpec:
    """Return two stacked bars of two parts."""
    series = tuple(
        Series(
            name=name, label=name, style=Style(colour=colour, marker="square", dash="solid"), kind="bar",
            x=lengths, y=(1.0, 0.0),
        )
        for name, colour, lengths in (("DRAM", COLOURS[0], (10.0, 4.0)), ("Flash", COLOURS[1], (30.0, 6.5)))
    )  # fmt: skip
    ticks = ((0.0, "DIP"), (1.0, "Dense"))
    y = Axis(label="", range=(-0.6, 1.6), ticks=ticks)
    return FigureSpec(title="Time", x=Axis(label="Time per token", unit="ms"), y=y, series=series)


def heat_spec(rows: int = 3, columns: int = 8) -> FigureSpec:
    """Return a heat map with one missing cell."""
    values = tuple(
        tuple(None if (r, c) == (1, 3) else math.sin(c + r) for c in range(columns)) for r in range(rows)
    )
    heat = HeatMap(
        rows=tuple(f"Row_{r} & 1%" for r in range(rows)),
        columns=tuple(map(str, range(columns))),
        values=values,
        scale=ColourScale(label="ΔNLL", unit="nats/token", better="lower", kind="diverging"),
    )
    provenance = Provenance(methods=("glu_pruning",), how=("measured",))
    return FigureSpec(
        title="By layer", x=Axis(label="Layer"), y=Axis(label="Metric"), heat=heat, provenance=provenance
    )


def log_spec() -> FigureSpec:
    """Return a roofline on two logarithmic axes, with a baseline at zero that cannot be drawn."""
    roof = Series(
        name="roof", label="Roof", kind="curve",
        style=Style(colour=COLOURS[2], marker="circle", dash="solid"),
        x=(0.1, 10.0, 1000.0), y=(1.0, 100.0, 100.0),
    )  # fmt: skip
    point = Series(name="dip", label="DIP", style=style_of("dip"), kind="markers", x=(2.0,), y=(11.0,))
    x, y = Axis(label="Intensity", unit="FLOP/B", log=True), Axis(label="Speed", unit="GFLOP/s", log=True)
    lines = (Baseline(value=0.0, label="Zero"),)
    return FigureSpec(title="Roofline", x=x, y=y, series=(roof, point), baselines=lines)


def strip_spec() -> FigureSpec:
    """Return a text of some lines, one token without a value."""
    words = (
        "The",
        " quick",
        " brown",
        " fox",
        " jumps",
        " 50%",
        " of_it",
        "\n",
        "over",
        " &",
        " thé",
        ".",
    )
    tokens = words * 5
    values = tuple(None if i == 2 else abs(math.sin(i)) for i in range(len(tokens)))
    scale = ColourScale(label="KL", unit="nats", better="lower")
    strip = TokenStrip(tokens=tokens, values=values, scale=scale)
    return FigureSpec(title="Tokens", x=Axis(label=""), y=Axis(label=""), strip=strip)


def every_kind(**settings: object) -> PaperFigure:
    """Return a figure of five panels, one of each kind, called with awkward characters."""
    figure = PaperFigure.of(
        curves_spec(), bars_spec(), heat_spec(), log_spec(), strip_spec(), title=f"Five panels: {EVIL}"
    )
    return figure.changed(settings={**figure.settings.model_dump(), **settings})
