r"""AdapMoE: drop an expert that weighs little in a layer that is not sensitive.

Source: Zhong et al., arXiv 2408.10284: an expert of rank r is dropped if ``w_r < sqrt(θ / F_l)``, F_l being
the mean squared gradient of the loss at the output of layer l's mixture, on calibration text. F is taken
relative to its mean over the layers, so that θ is a squared router probability and no model's own unit.
"""

from __future__ import annotations

import numpy as np

from backend.errors import UserError
from backend.routing.fewer_experts import first_ranks
from backend.routing.policy import Choice, Rerouting, RoutingContext, routing
from backend.routing.routes import Routes
from backend.settings import setting


@routing
class AdapMoE(Rerouting):
    """Experts below a threshold of their layer are dropped."""

    name = "adapmoe"
    title = "AdapMoE gating"
    summary = (
        "Drops experts whose router probability lies below a threshold set by their layer's sensitivity."
    )
    equation = r"S = \{r_1\} \cup \{r_j : j \le K,~w_{r_j} \ge \sqrt{\theta / F_l}\}"
    paper = "Zhong et al., arXiv 2408.10284"
    limits = (
        "Its adaptive gating alone, without prefetching and cache sizes by layer. F is measured on "
        "calibration text, by a backward pass, and counted relative to its mean over the layers."
    )
    calibration = "gradient"
    sweep_setting = "theta"

    theta: float = setting(
        1e-3, "Squared router probability below which an expert of an average layer is dropped.", symbol="θ",
        ge=0, le=1,
    )  # fmt: skip

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Keep the ranks above the layer's threshold; the first one always."""
        if context.calibration is None:
            raise UserError(
                f"{self.title} needs its layers' sensitivities; measure it by the routing evaluation."
            )
        threshold = np.sqrt(self.theta / max(context.calibration, 1e-30))
        kept = (routes.ranked_probabilities[:, : routes.k] >= threshold).sum(axis=1)
        return first_ranks(routes, np.maximum(kept, 1))
