r"""AdapMoE: drop an expert that weighs little in a layer that is not sensitive.

Source: Zhong et al., arXiv 2408.10284: an expert of rank r is dropped if ``w_r < sqrt(θ / F_l)``, F_l being
the mean squared gradient of the loss at the output of layer l's mixture, on calibration text. F is taken
relative to its mean over the layers, so that θ is a squared router probability and no model's own unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.routing.calibrated import CalibratedRouting
from backend.routing.fewer_experts import first_ranks
from backend.routing.policy import Choice, RoutingContext, routing
from backend.routing.routes import Routes
from backend.settings import setting

if TYPE_CHECKING:
    from torch import Tensor

    from backend.routing.anatomy import MoEAnatomy


@routing
class AdapMoE(CalibratedRouting):
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
    sweep_setting = "theta"
    may_use_fewer = True

    theta: float = setting(
        1e-3, "Squared router probability below which an expert of an average layer is dropped.", symbol="θ",
        ge=0, le=1,
    )  # fmt: skip

    def deciding(self) -> dict[str, Any]:
        """Return the number of tokens alone: one calibration serves every θ."""
        return {"calibration_tokens": self.calibration_tokens}

    def calibrate(self, anatomy: MoEAnatomy, batches: Iterable[Tensor]) -> dict[str, Tensor]:
        """Measure each layer's F, by a backward pass."""
        import torch

        from backend.routing.calibration import layer_sensitivities

        found = layer_sensitivities(anatomy, batches)
        return {
            f"{layer}.sensitivity": torch.tensor(value, dtype=torch.float64) for layer, value in found.items()
        }

    def choose(self, routes: Routes, context: RoutingContext) -> Choice:
        """Keep the ranks above the layer's threshold; the first one always."""
        threshold = np.sqrt(self.theta / max(self.fitted(context, "sensitivity"), 1e-30))
        kept = (routes.ranked_probabilities[:, : routes.k] >= threshold).sum(axis=1)
        return first_ranks(routes, np.maximum(kept, 1))
