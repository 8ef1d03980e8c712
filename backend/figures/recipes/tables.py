"""The table that papers print: every method at the same densities, best in bold."""

from __future__ import annotations

from backend.errors import UserError
from backend.figures.curves import dense_point
from backend.figures.metrics import COST, QUALITY
from backend.figures.read_out import MethodReading, read_out
from backend.figures.recipes.panels import EvaluationChoice, Stored
from backend.figures.tables import Cell, Row, Table, TableColumn
from backend.settings import setting


class TableRecipe(EvaluationChoice):
    """Methods in rows, costs in columns; a method that cannot reach a cost has no value there."""

    title: str = setting("", "What it is; by default made of its settings.")
    at: tuple[float, ...] = setting((0.5, 0.7, 0.9), "The costs at which methods are read out.")
    quality: str = setting("perplexity", "What is read: perplexity, delta_nll, kl or agreement.")
    cost: str = setting("mlp_density", "The metric that is the cost.")
    methods: tuple[str, ...] | None = setting(None, "Names of the methods shown; by default all.")

    def table(self, stored: Stored) -> Table:
        """Return the table.

        Raises:
            UserError: What it needs is not stored.
        """
        if not self.at:
            raise UserError("A table needs at least one density in 'at'.")
        found, metric, axis = self.evaluated(stored), QUALITY[self.quality], COST[self.cost]
        digits = int(metric.format.strip("{}:.f") or 3)
        columns = tuple(
            TableColumn(
                label=f"{metric.label} at {at:g}", unit=metric.unit, better=metric.better,
                digits=digits,
            )
            for at in self.at
        )  # fmt: skip
        readings = [read_out(found.points, found.windows, at, self.cost) for at in self.at]
        rows = []
        dense = dense_point(found.points)
        if dense is not None:
            value = Cell(value=float(dense[self.quality]))
            rows.append(Row(label="Dense", cells=(value,) * len(columns), ranked=False))
        for same in zip(*readings, strict=True):
            curve = same[0].curve
            if self.methods is None or curve.policy in self.methods:
                cells = tuple(self._cell(reading) for reading in same)
                rows.append(Row(label=curve.label, cells=cells, ranked=curve.usable))
        title = self.title or f"{metric.label} at equal {axis.label} ({found.label})"
        note = "± one standard error over windows. Values between measured points are interpolated."
        return Table(title=title, head="Method", columns=columns, rows=tuple(rows), note=note)

    def _cell(self, reading: MethodReading) -> Cell:
        found = getattr(reading, self.quality)
        return Cell() if found is None else Cell(value=found.value, stderr=found.stderr)
