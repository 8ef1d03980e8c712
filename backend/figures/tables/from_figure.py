"""The table of a figure: its data as a paper would print them."""

from __future__ import annotations

import math

from backend.figures.spec import Axis, FigureSpec, Series
from backend.figures.tables.record import Cell, Row, Table, TableColumn
from backend.figures.token_strip import TokenStrip

_MOST_WIDE = 8
"""Up to so many positions that series share stand side by side."""
_SAMPLED = 11
"""So many points of a dense curve are printed."""
_UNRANKED = ("dense", "front")


def table_of(spec: FigureSpec) -> Table:
    """Return a figure's table.

    A heat map is its own table. Series that are measured at the same few positions stand one a row, with
    best and second best at each; other points stand one a row. Fronts are left out: their points are there.
    """
    if spec.heat is not None:
        return _of_heat(spec)
    if spec.strip is not None:
        return _of_strip(spec, spec.strip)
    series = [each for each in spec.series if each.kind != "front" and each.x]
    if spec.y.ticks:
        return _of_named_rows(spec, series)
    positions = sorted({x for each in series for x in each.x})
    if len(series) > 1 and 1 <= len(positions) <= _MOST_WIDE:
        return _side_by_side(spec, series, positions)
    return _one_point_a_row(spec, series)


def _of_heat(spec: FigureSpec) -> Table:
    heat = spec.heat
    assert heat is not None
    digits = _digits([v for row in heat.values for v in row if v is not None])
    rows = tuple(
        Row(label=name, cells=tuple(Cell(value=value) for value in values))
        for name, values in zip(heat.rows, heat.values, strict=True)
    )
    columns = tuple(
        TableColumn(label=f"{spec.x.label} {name}".strip(), better=heat.scale.better, digits=digits)
        for name in heat.columns
    )
    note = " ".join(filter(None, (f"{heat.scale.title}.", spec.note)))
    return Table(title=spec.title, head=spec.y.label or "Row", columns=columns, rows=rows, note=note)


def _of_strip(spec: FigureSpec, strip: TokenStrip) -> Table:
    digits = _digits([value for value in strip.values if value is not None])
    column = TableColumn(label=strip.scale.label, unit=strip.scale.unit, digits=digits)
    pairs = zip(strip.tokens, strip.values, strict=True)
    rows = tuple(Row(label=token.replace("\n", "↵"), cells=(Cell(value=value),)) for token, value in pairs)
    return Table(title=spec.title, head="Token", columns=(column,), rows=rows, note=spec.note)


def _of_named_rows(spec: FigureSpec, series: list[Series]) -> Table:
    """Return the table of a figure whose rows are named on its axis: bars, or one point a method."""
    bars = [each for each in series if each.kind == "bar"]
    named = [(text, position) for position, text in reversed(spec.y.ticks)]
    digits = _digits([x for each in series for x in each.x])
    if bars:
        columns = tuple(
            TableColumn(label=each.label, unit=spec.x.unit, better=spec.x.better, digits=digits)
            for each in bars
        )
        rows = tuple(
            Row(label=text, cells=tuple(_at(each, each.y, each.x, position) for each in bars))
            for text, position in named
        )
    else:
        columns = (_column(spec.x, digits),)
        found = {position: _at(each, each.y, each.x, position) for each in series for position in each.y}
        rows = tuple(
            Row(label=text, cells=(found[position],)) for text, position in named if position in found
        )
    return Table(title=spec.title, head="Method", columns=columns, rows=rows, note=spec.note)


def _side_by_side(spec: FigureSpec, series: list[Series], positions: list[float]) -> Table:
    digits = _digits([y for each in series for y in each.y])
    label = f"{spec.y.label} at {spec.x.label}" if spec.x.label else spec.y.label
    columns = tuple(
        TableColumn(label=f"{label} {x:g}", unit=spec.y.unit, better=spec.y.better, digits=digits)
        for x in positions
    )
    rows = tuple(
        Row(
            label=each.label,
            cells=tuple(_at(each, each.x, each.y, x) for x in positions),
            ranked=each.name not in _UNRANKED and "(oracle)" not in each.label,
        )
        for each in series
    )
    return Table(title=spec.title, head="Method", columns=columns, rows=rows, note=spec.note)


def _one_point_a_row(spec: FigureSpec, series: list[Series]) -> Table:
    columns = tuple(
        _column(axis, _digits([v for each in series for v in getattr(each, name)])).model_copy(
            update={"better": None}
        )
        for name, axis in (("x", spec.x), ("y", spec.y))
    )
    rows = tuple(
        Row(
            label=each.label,
            cells=(
                Cell(value=each.x[i], stderr=each.x_err[i] if each.x_err else None),
                Cell(value=each.y[i], stderr=each.y_err[i] if each.y_err else None),
            ),
        )
        for each in series
        for i in _shown(each)
    )
    return Table(title=spec.title, head="Series", columns=columns, rows=rows, note=spec.note)


def _column(axis: Axis, digits: int) -> TableColumn:
    return TableColumn(label=axis.label, unit=axis.unit, better=axis.better, digits=digits)


def _at(series: Series, places: tuple[float, ...], values: tuple[float, ...], place: float) -> Cell:
    """Return a series' value at a place, an empty cell where it has none."""
    if place not in places:
        return Cell()
    i = places.index(place)
    errors = series.y_err if values is series.y else series.x_err
    return Cell(value=values[i], stderr=errors[i] if errors else None)


def _shown(series: Series) -> list[int]:
    last = len(series.x) - 1
    if series.kind != "curve" or last < _SAMPLED:
        return list(range(last + 1))
    return sorted({round(i * last / (_SAMPLED - 1)) for i in range(_SAMPLED)})


def _digits(values: list[float]) -> int:
    """Return digits after the point that show three significant ones of a middling value."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes:
        return 2
    return min(max(2 - math.floor(math.log10(sizes[len(sizes) // 2])), 0), 6)
