"""Routing policies that are fitted on a calibration text before they run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from backend.calibrated import CalibratedMethod
from backend.routing.policy import Rerouting, RoutingContext

if TYPE_CHECKING:
    from torch import Tensor

    from backend.routing.anatomy import MoEAnatomy


class CalibratedRouting(CalibratedMethod, Rerouting):
    """A policy that measures something of the model's own routing on a calibration text."""

    def calibrate(self, anatomy: MoEAnatomy, batches: Iterable[Tensor]) -> dict[str, Tensor]:
        """Return what is fitted, by layer and quantity ("3.sensitivity").

        Args:
            anatomy: The model, with its original routing.
            batches: Token ids of calibration sequences. # each [1, T]
        """
        raise NotImplementedError

    def fitted(self, context: RoutingContext, name: str) -> float:
        """Return what was fitted for this layer under a name.

        Raises:
            UserError: The policy was not fitted.
        """
        return float(self.fitted_in(context.calibration, context.layer, name))
