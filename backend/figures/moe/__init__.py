"""Figures of mixtures of experts: what a routing loads, what caches miss, what that costs."""

from backend.figures.moe.findings import findings, quality_finding
from backend.figures.moe.grid import ORIGINAL, GridPoint, at_slots, grid_points, stored_slots, variants
from backend.figures.moe.layers import layer_figure, policy_line, worst_layers
from backend.figures.moe.lifetimes import BEYOND, RULES_SHOWN, lifetime_figure
from backend.figures.moe.miss_rates import Scope, curve_in, miss_figure
from backend.figures.moe.quality import quality_figure
from backend.figures.moe.sources import RoutingSource, model_label, routing_sources
from backend.figures.moe.speeds import speed_figure
from backend.figures.moe.times import TimeRow, stored_time, time_figure, time_of
from backend.figures.moe.traffic import Balance, balance_of, traffic_map

__all__ = [
    "BEYOND",
    "ORIGINAL",
    "RULES_SHOWN",
    "Balance",
    "GridPoint",
    "RoutingSource",
    "Scope",
    "TimeRow",
    "at_slots",
    "balance_of",
    "curve_in",
    "findings",
    "grid_points",
    "layer_figure",
    "lifetime_figure",
    "miss_figure",
    "model_label",
    "policy_line",
    "quality_figure",
    "quality_finding",
    "routing_sources",
    "speed_figure",
    "stored_slots",
    "stored_time",
    "time_figure",
    "time_of",
    "traffic_map",
    "variants",
    "worst_layers",
]
