"""What is in fast memory: caches of columns, neurons and experts, over recorded accesses. Free of torch.

Importing this package is cheap: numba and the compiled walks are loaded when something is computed.
"""

from backend.residency.eviction import EVICTIONS, Eviction, Walk, simulate
from backend.residency.layout import Layout, expert_layout, input_layout, neuron_layout
from backend.residency.lifetimes import Lifetimes, lifetimes, lifetimes_in
from backend.residency.miss_curve import MissCurve, miss_curve_of, miss_curves_of, total
from backend.residency.online import OnlineCache, Step
from backend.residency.route_trace import RouteTrace, parse_route_trace, read_route_trace
from backend.residency.route_trace_export import as_record, miss_curve, route_trace_lines
from backend.residency.routing_record import LayerRouting, RoutingRecord
from backend.residency.trace import ExpertTrace, MaskTrace, Trace
from backend.residency.windowing import WindowCurve, simulate_window, window_curve

__all__ = [
    "EVICTIONS",
    "Eviction",
    "ExpertTrace",
    "LayerRouting",
    "Layout",
    "Lifetimes",
    "MaskTrace",
    "MissCurve",
    "OnlineCache",
    "RouteTrace",
    "RoutingRecord",
    "Step",
    "Trace",
    "Walk",
    "WindowCurve",
    "as_record",
    "expert_layout",
    "input_layout",
    "lifetimes",
    "lifetimes_in",
    "miss_curve",
    "miss_curve_of",
    "miss_curves_of",
    "neuron_layout",
    "parse_route_trace",
    "read_route_trace",
    "route_trace_lines",
    "simulate",
    "simulate_window",
    "total",
    "window_curve",
]
