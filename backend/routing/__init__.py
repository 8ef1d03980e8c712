"""Expert routing policies: one file a family. Importing this package registers them all, without torch."""

from backend.routing import adapmoe, cache_conditional, fewer_experts, original, random_swap
from backend.routing.policy import ROUTINGS, Choice, RoutingContext, RoutingPolicy, make_routing
from backend.routing.routes import NONE, Routes

__all__ = [
    "NONE",
    "ROUTINGS",
    "Choice",
    "Routes",
    "RoutingContext",
    "RoutingPolicy",
    "adapmoe",
    "cache_conditional",
    "fewer_experts",
    "make_routing",
    "original",
    "random_swap",
]
