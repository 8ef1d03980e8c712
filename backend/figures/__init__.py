"""Figures: frozen specs of what is drawn, and two renderers, for the screen and for paper."""

from backend.figures.at_cost import at_cost
from backend.figures.curves import Curve, curves, dense_point, point_label
from backend.figures.front import pareto_front
from backend.figures.heat_map import ColourScale, HeatMap
from backend.figures.metrics import COST, QUALITY, Metric
from backend.figures.palette import STYLES, Style, style_of
from backend.figures.read_out import Feasible, MethodReading, best_within_budget, lowest, read_out, relative
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series
from backend.figures.token_strip import TokenStrip
from backend.figures.trade_off import TradeOffOptions, trade_off

__all__ = [
    "COST",
    "QUALITY",
    "STYLES",
    "Axis",
    "Baseline",
    "ColourScale",
    "Curve",
    "Feasible",
    "FigureSpec",
    "HeatMap",
    "MethodReading",
    "Metric",
    "Provenance",
    "Series",
    "Style",
    "TokenStrip",
    "TradeOffOptions",
    "at_cost",
    "best_within_budget",
    "curves",
    "dense_point",
    "lowest",
    "pareto_front",
    "point_label",
    "read_out",
    "relative",
    "style_of",
    "trade_off",
]
