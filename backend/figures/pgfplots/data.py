"""The CSV that a panel's PGFPlots reads, and lines that TeX can draw.

TeX knows no length above 5.7 metres: a curve that leaves the panel is cut shortly outside of it, on the very
line that it would have followed. The points themselves stand in the CSV uncut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from backend.figures.spec import FigureSpec, Series

Point = tuple[float, float]
_BEYOND = 0.5
"""How far outside a panel lines are cut, in its sizes."""


@dataclass(frozen=True)
class Window:
    """What a panel shows.

    Attributes:
        x: Its horizontal limits, rising.
        y: Its vertical limits, rising.
        x_log: Logarithmic horizontally.
        y_log: Logarithmic vertically.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_log: bool
    y_log: bool

    def place(self, point: Point) -> Point | None:
        """Return where a point is, (0, 0) to (1, 1) inside; None if a logarithm cannot be taken."""
        if (self.x_log and point[0] <= 0) or (self.y_log and point[1] <= 0):
            return None
        return _share(point[0], self.x, self.x_log), _share(point[1], self.y, self.y_log)

    def shows(self, point: Point) -> bool:
        """Tell whether a point is inside."""
        place = self.place(point)
        return place is not None and all(-1e-9 <= share <= 1 + 1e-9 for share in place)

    def point(self, place: Point) -> Point:
        """Return the point at a place."""
        return _value(place[0], self.x, self.x_log), _value(place[1], self.y, self.y_log)


def line_of(series: Series, window: Window) -> list[Point]:
    """Return a series' line as it is drawn; [] if it needs no cut.

    (nan, nan) stands where it is interrupted.
    """
    corners = list(zip(series.x, series.y, strict=True))
    if series.kind == "front":  # steps, drawn after each point
        pairs = itertools.pairwise(corners)
        corners = [corner for (x, y), after in pairs for corner in ((x, y), (after[0], y))] + corners[-1:]
    places = [window.place(corner) for corner in corners]
    inside = all(place is not None and _cut(place, place) for place in places)
    if inside and series.kind != "front":
        return []
    line: list[Point] = []
    for one, other in itertools.pairwise(places):
        kept = None if one is None or other is None else _cut(one, other)
        if kept is None:
            continue
        begin, end = (window.point(place) for place in kept)
        if not line or line[-1] != begin:
            line += [(math.nan, math.nan), begin] if line else [begin]
        line.append(end)
    return line


def panel_frame(spec: FigureSpec, window: Window) -> pd.DataFrame:
    """Return a panel's data, a few columns a series.

    They are ``<key>_x``, ``_y``, ``_xerr``, ``_yerr``, ``_dominated``, ``_interpolated``; ``_seen_y`` without
    the points outside the panel; ``_line_x``, ``_line_y`` where its line had to be cut. Shorter ones end in
    nan.
    """
    if spec.heat is not None or spec.strip is not None:
        return spec.frame()
    columns: dict[str, Sequence[float]] = {}
    for key, series in zip(keys_of(spec), spec.series, strict=True):
        columns |= {f"{key}_x": series.x, f"{key}_y": series.y}
        seen = [window.shows(point) for point in zip(series.x, series.y, strict=True)]
        if not all(seen) and series.kind not in ("curve", "front"):
            pairs = zip(series.y, seen, strict=True)
            columns[f"{key}_seen_y"] = [y if here else math.nan for y, here in pairs]
        for name, errors in (("xerr", series.x_err), ("yerr", series.y_err)):
            if any(errors):
                columns[f"{key}_{name}"] = [error or 0.0 for error in errors]
        for name, flags in (("dominated", series.faded), ("interpolated", series.hollow)):
            if any(flags):
                triples = zip(series.y, flags, seen, strict=True)
                columns[f"{key}_{name}"] = [y if flag and here else math.nan for y, flag, here in triples]
        if line := line_of(series, window):
            columns |= {f"{key}_line_x": [x for x, _ in line], f"{key}_line_y": [y for _, y in line]}
    return pd.DataFrame({name: pd.Series(list(values), dtype=float) for name, values in columns.items()})


def keys_of(spec: FigureSpec) -> list[str]:
    """Return a short name for each series that is a column's name in CSV and TeX, each once."""
    names: list[str] = []
    for series in spec.series:
        letters = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in series.name)
        key = "-".join(letters.lower().split()) or "series"
        names.append(key if key not in names else f"{key}-{len(names)}")
    return names


def _cut(one: Point, other: Point) -> tuple[Point, Point] | None:
    """Return the part of a segment inside the panel and a little around it (Liang and Barsky, 1984)."""
    begin, end = 0.0, 1.0
    for at, to in zip(one, other, strict=True):
        step = to - at
        for limit, sign in ((-_BEYOND, -1), (1 + _BEYOND, 1)):
            room = sign * (limit - at)
            if step == 0:
                if room < 0:
                    return None
                continue
            share = (limit - at) / step
            if sign * step < 0:
                begin = max(begin, share)
            else:
                end = min(end, share)
    if begin > end:
        return None
    cut = [tuple(a + share * (b - a) for a, b in zip(one, other, strict=True)) for share in (begin, end)]
    return (cut[0][0], cut[0][1]), (cut[1][0], cut[1][1])


def _share(value: float, limits: tuple[float, float], log: bool) -> float:
    low, high, at = (*map(math.log, limits), math.log(value)) if log else (*limits, value)
    return (at - low) / (high - low)


def _value(share: float, limits: tuple[float, float], log: bool) -> float:
    if log:
        low, high = map(math.log, limits)
        return math.exp(low + share * (high - low))
    return limits[0] + share * (limits[1] - limits[0])
