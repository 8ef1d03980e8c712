"""Mask policies that are fitted on a calibration text before they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.calibrated import CalibratedMethod
from backend.sparsity.policy import Context, Policy

if TYPE_CHECKING:
    from torch import Tensor


class Calibrated(CalibratedMethod, Policy):
    """A mask policy whose observer fits something on a calibration text."""

    def fitted(self, context: Context, name: str) -> Tensor:
        """Return what was fitted for this layer under a name.

        Raises:
            UserError: The policy was not fitted.
        """
        return self.fitted_in(context.calibration, context.layer, name)
