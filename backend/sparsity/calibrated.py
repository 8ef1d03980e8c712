"""Policies that are fitted on a calibration text before they run: what they share.

What an observer fits is a flat mapping of names ("3.threshold": layer, then quantity) to tensors, so that it
can be kept in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.errors import UserError
from backend.settings import setting
from backend.sparsity.policy import Context, Policy

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_TEXT, WITHOUT_DATA = "wikitext2_train", "prose"
"""The calibration text by default, and what stands in for it where no data root has it."""


class Calibrated(Policy):
    """A policy with something fitted on a calibration text, which must not be evaluated too."""

    calibration: str = setting(
        DEFAULT_TEXT,
        f"Calibration text: a named text or the path of a text file; its end is read. {DEFAULT_TEXT} needs a "
        f"data root, without one it is {WITHOUT_DATA}.",
    )
    calibration_tokens: int = setting(
        4_096, "Tokens of the calibration text that are read.", unit="tokens", ge=64, le=1_000_000
    )

    def fitted(self, context: Context, name: str) -> Tensor:
        """Return what was fitted for this layer under a name.

        Raises:
            UserError: The policy was not fitted.
        """
        if context.calibration is None:
            raise UserError(
                f"{self.title} has to be fitted on a calibration text first, which this run does not do; "
                "measure it with a sweep."
            )
        found: Tensor = context.calibration[f"{context.layer}.{name}"]
        return found
