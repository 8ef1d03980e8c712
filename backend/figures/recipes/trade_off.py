"""Panels of quality against cost: trade-offs, read-outs at one cost, findings."""

from __future__ import annotations

from typing import Literal

from backend.errors import UserError
from backend.figures.at_cost import at_cost
from backend.figures.curves import dense_point
from backend.figures.findings import against_others, between_bounds, within_budget
from backend.figures.metrics import ALL, COST, QUALITY
from backend.figures.read_out import read_out
from backend.figures.recipes.panels import EvaluationChoice, PanelRecipe, Stored, recipe
from backend.figures.spec import FigureSpec
from backend.figures.trade_off import TradeOffOptions, provenance, trade_off
from backend.registry import did_you_mean
from backend.settings import setting
from backend.sparsity import METHODS


@recipe("trade_off")
class TradeOffPanel(EvaluationChoice, PanelRecipe):
    """Quality against cost, every method a curve."""

    quality: str = setting("perplexity", "The vertical metric: perplexity, delta_nll, kl or agreement.")
    cost: str = setting("mlp_density", "The horizontal metric: mlp_density, model_density, bytes_per_token.")
    methods: tuple[str, ...] | None = setting(None, "Names of the methods shown; by default all.")
    view: str = setting("Wide", "How far from the dense model the vertical axis reaches; All for everything.")
    log: bool = setting(False, "Logarithmic vertical axis.")

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the trade-off; parts of it are left out by the figure's settings."""
        for name in self.methods or ():
            METHODS[name]  # an unknown one says what it may have meant
        views = [*QUALITY[self.quality].views, ALL]
        if self.view not in views:
            raise UserError(f"'{self.view}' is no view of {self.quality}; {did_you_mean(self.view, views)}")
        options = TradeOffOptions(self.quality, self.cost, self.methods, self.log, self.view)
        return trade_off(self.evaluated(stored).points, options)


@recipe("read_out")
class ReadOutPanel(EvaluationChoice, PanelRecipe):
    """Every method's value at one cost, one row each."""

    at: float = setting(..., "The cost at which methods are read out.", ge=0.0)
    quality: str = setting("perplexity", "What is read: perplexity, delta_nll, kl or agreement.")
    cost: str = setting("mlp_density", "The metric that is the cost.")
    methods: tuple[str, ...] | None = setting(None, "Names of the methods shown; by default all.")

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the read-out; values between measured points are interpolated and say so."""
        found = self.evaluated(stored)
        metric = QUALITY[self.quality]
        COST[self.cost]
        readings = [
            reading
            for reading in read_out(found.points, found.windows, self.at, self.cost)
            if self.methods is None or reading.curve.policy in self.methods
        ]
        dense = dense_point(found.points)
        line = metric.dense
        if line is None and dense is not None:
            line = float(dense[self.quality])
        spec = at_cost(readings, self.at, self.quality, self.cost, line)
        where = provenance(found.points, [reading.curve for reading in readings])
        merged = where.model_copy(update={"filters": {**where.filters, **spec.provenance.filters}})
        return spec.model_copy(update={"provenance": merged})


@recipe("finding")
class FindingPanel(EvaluationChoice, PanelRecipe):
    """One of the Home page's findings about DIP."""

    which: Literal["within_budget", "against_others", "between_bounds"] = setting(
        ..., "within_budget, against_others or between_bounds."
    )
    budget: float = setting(0.01, "Perplexity that may be lost.", unit="share of dense", gt=0.0, le=1.0)
    density: float = setting(0.5, "Density of the comparison with the bounds.", gt=0.0, le=1.0)

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the finding's figure."""
        found = self.evaluated(stored)
        if self.which == "within_budget":
            finding = within_budget(found.points, self.budget)
        elif self.which == "against_others":
            finding = against_others(found.points, found.windows, (0.7, 0.85))
        else:
            finding = between_bounds(found.points, found.windows, self.density)
        if finding is None:
            raise UserError(f"The finding '{self.which}' needs points that are not stored for {found.label}.")
        return finding.spec
