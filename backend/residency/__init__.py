"""What is in fast memory: caches of columns, neurons and experts, over recorded accesses. Free of torch.

Importing this package is cheap: numba and the compiled walks are loaded when something is computed.
"""

from backend.residency.eviction import EVICTIONS, Eviction, Walk, simulate
from backend.residency.layout import Layout, expert_layout, input_layout, neuron_layout
from backend.residency.miss_curve import MissCurve, miss_curve_of, total
from backend.residency.online import OnlineCache, Step
from backend.residency.route_trace import RouteTrace, miss_curve, read_route_trace
from backend.residency.trace import ExpertTrace, MaskTrace, Trace
from backend.residency.windowing import WindowCurve, simulate_window, window_curve

__all__ = [
    "EVICTIONS",
    "Eviction",
    "ExpertTrace",
    "Layout",
    "MaskTrace",
    "MissCurve",
    "OnlineCache",
    "RouteTrace",
    "Step",
    "Trace",
    "Walk",
    "WindowCurve",
    "expert_layout",
    "input_layout",
    "miss_curve",
    "miss_curve_of",
    "neuron_layout",
    "read_route_trace",
    "simulate",
    "simulate_window",
    "total",
    "window_curve",
]
