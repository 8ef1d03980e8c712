"""Figure specs: what is drawn, apart from how. One frozen record, drawn for the screen and for paper.

A spec holds numbers, labels and where they came from, and survives JSON unchanged; a renderer adds nothing
to it but ink.
"""

from __future__ import annotations

from typing import Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from backend.figures.drawing.text import titled
from backend.figures.heat_map import Better, HeatMap
from backend.figures.palette import Style
from backend.figures.record import Record
from backend.figures.token_strip import TokenStrip

How = Literal["measured", "simulated", "oracle"]


class Axis(Record):
    """One axis.

    Attributes:
        label: What it shows ("Perplexity").
        unit: Its unit, "" for none.
        better: Which direction is better, None if neither is.
        log: Logarithmic.
        range: Fixed range (low, high), None to fit the data.
        ticks: Fixed ticks as (position, text), for categories; empty for the renderer's choice.
    """

    label: str
    unit: str = ""
    better: Better | None = None
    log: bool = False
    range: tuple[float, float] | None = None
    ticks: tuple[tuple[float, str], ...] = ()

    @property
    def title(self) -> str:
        """The axis title, with unit and direction: "Perplexity (lower is better)"."""
        return titled(self.label, self.unit, self.better)


class Series(Record):
    """Points that share a style and a name in the legend; all tuples are as long as ``x``, or empty.

    Attributes:
        name: Its key: a method's name in the registry, or "front".
        label: Its name in the legend.
        style: Colour, marker and dash.
        kind: "markers", "line" (a line through the points, with markers), "curve" (a line alone), "front" (a
            staircase) or "bar" (a horizontal bar from where the bars before it end; x its length, y its row).
        x: Positions.
        y: Values.
        x_err: One standard error of each x, None where there is none.
        y_err: One standard error of each y, None where there is none.
        ids: What each point is, as a cell's id.
        details: What hovering over each point says.
        faded: Points drawn in grey: dominated ones.
        hollow: Points drawn open: interpolated ones.
    """

    name: str
    label: str
    style: Style
    kind: Literal["markers", "line", "curve", "front", "bar"] = "line"
    x: tuple[float, ...]
    y: tuple[float, ...]
    x_err: tuple[float | None, ...] = ()
    y_err: tuple[float | None, ...] = ()
    ids: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    faded: tuple[bool, ...] = ()
    hollow: tuple[bool, ...] = ()

    @model_validator(mode="after")
    def _equally_long(self) -> Self:
        for name in ("y", "x_err", "y_err", "ids", "details", "faded", "hollow"):
            values = getattr(self, name)
            if len(values) != len(self.x) and (values or name == "y"):
                raise ValueError(f"{name} has {len(values)} values, x has {len(self.x)}")
        return self


class Baseline(Record):
    """A line across the figure at one value, with its name beside it.

    Attributes:
        value: Where.
        label: Its name.
        axis: The axis whose value it is.
        role: "baseline" for what was measured or chosen here, "claim" for what a paper says.
    """

    value: float
    label: str
    axis: Literal["x", "y"] = "y"
    role: Literal["baseline", "claim"] = "baseline"


class Provenance(Record):
    """Where a figure's numbers came from.

    Attributes:
        runs: Ids of the runs that measured them.
        filters: What was selected, as names to values.
        how: Every way in which its numbers were got.
        methods: Names of the methods whose numbers they are, where the series do not say it (a heat map).
    """

    runs: tuple[str, ...] = ()
    filters: dict[str, str] = Field(default_factory=dict)
    how: tuple[How, ...] = ()
    methods: tuple[str, ...] = ()


class FigureSpec(Record):
    """A figure: series over two axes, a heat map, or a token strip.

    Attributes:
        title: What it is; also the text read out in its place.
        x: The horizontal axis; of a heat map, what its columns are.
        y: The vertical axis; of a heat map, what its rows are.
        series: What is drawn, in the order of the legend; none beside a heat map.
        baselines: Lines across.
        heat: The heat map, None for another kind of figure.
        strip: The token strip, None for another kind of figure.
        note: What a reader has to know: what the error bars are, what is left out.
        provenance: Where the numbers came from.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    heat: HeatMap | None = None
    strip: TokenStrip | None = None
    note: str = ""
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.heat is not None and (self.series or self.baselines):
            raise ValueError("a heat map stands alone: it has no series and no baselines")
        if self.strip is not None and (self.series or self.baselines or self.heat):
            raise ValueError("a token strip stands alone: it has no series, no baselines and no heat map")
        return self

    def alt(self) -> str:
        """Return the figure in a sentence, for those who do not see it."""
        if self.heat is not None:
            return f"{self.title}. {self._heat_alt(self.heat)} {self.note}".strip()
        if self.strip is not None:
            text = "".join(self.strip.tokens)
            coloured = f"{len(self.strip.tokens)} tokens coloured by {self.strip.scale.title}"
            return f"{self.title}. {coloured}: {text} {self.note}".strip()
        names = ", ".join(series.label for series in self.series)
        axes = f"{self.y.title} against {self.x.title}" if self.y.label else self.x.title
        return f"{self.title}. {axes}; series: {names or 'none'}. {self.note}".strip()

    def frame(self) -> pd.DataFrame:
        """Return the figure's data, one row a point: series, x, y, their standard errors, cell.

        Of a heat map, one row a cell: row, column, value; of a token strip, one row a token: its place, its
        text, its value under the same names.
        """
        if self.strip is not None:
            return self.strip.frame()
        if self.heat is not None:
            return self.heat.frame()
        rows = [
            {
                "series": series.label,
                "x": series.x[i],
                "x_stderr": series.x_err[i] if series.x_err else None,
                "y": series.y[i],
                "y_stderr": series.y_err[i] if series.y_err else None,
                "dominated": series.faded[i] if series.faded else False,
                "interpolated": series.hollow[i] if series.hollow else False,
                "cell": series.ids[i] if series.ids else "",
            }
            for series in self.series
            for i in range(len(series.x))
        ]
        columns = ["series", "x", "x_stderr", "y", "y_stderr", "dominated", "interpolated", "cell"]
        frame = pd.DataFrame(rows, columns=columns)
        return frame.astype({"x_stderr": "float64", "y_stderr": "float64"})

    def titled_frame(self) -> pd.DataFrame:
        """Return the figure's data under the axes' titles."""
        titles = {"x": self.x.title, "y": self.y.title}
        titles |= {f"{axis}_stderr": f"{title}, standard error" for axis, title in titles.items()}
        if self.strip is not None:
            titles = {"row": "place", "column": "token", "value": self.strip.scale.title}
        if self.heat is not None:
            named = {"row": self.y.title, "column": self.x.title, "value": self.heat.scale.title}
            titles = {key: title or key for key, title in named.items()}
        return self.frame().rename(columns=titles)

    def csv(self) -> bytes:
        """Return the figure's data as CSV, under the axes' titles."""
        return self.titled_frame().to_csv(index=False, lineterminator="\n").encode()

    def _heat_alt(self, heat: HeatMap) -> str:
        known = [value for row in heat.values for value in row if value is not None]
        reach = f" from {min(known):.3g} to {max(known):.3g}" if known else ""
        missing = f"; {heat.missing} without a value" if heat.missing else ""
        rows = f"{len(heat.rows)} rows ({self.y.label})" if self.y.label else f"{len(heat.rows)} rows"
        columns = (
            f"{len(heat.columns)} columns ({self.x.label})"
            if self.x.label
            else f"{len(heat.columns)} columns"
        )
        return f"Heat map of {heat.scale.title}{reach}, over {rows} and {columns}{missing}."
