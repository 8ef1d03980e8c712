"""The model's own routing: the reference that every other policy is paired with."""

from __future__ import annotations

from backend.routing.policy import Choice, RoutingContext, RoutingPolicy, routing
from backend.routing.routes import Routes


@routing
class Original(RoutingPolicy):
    """The K best experts, as the model was trained."""

    name = "original"
    title = "Original routing"
    summary = "Uses the K experts that the model's own router ranks first."
    equation = r"S = \{r_1, \dots, r_K\}"
    paper = ""

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Keep the model's own choice."""
        return routes.original
