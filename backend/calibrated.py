"""Methods that are fitted on a calibration text before they run: what those of either kind share.

What is fitted is a flat mapping of names ("3.threshold": layer, then quantity) to tensors, so that it can be
kept in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.methods import Method
from backend.settings import setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

DEFAULT_TEXT, WITHOUT_DATA = "wikitext2_train", "prose"
"""The calibration text by default, and what stands in for it where no data root has it."""


class CalibratedMethod(Method):
    """A method with something fitted on a calibration text, which must not be evaluated too."""

    calibration: str = setting(
        DEFAULT_TEXT,
        f"Calibration text: a named text or the path of a text file; its end is read. {DEFAULT_TEXT} needs a "
        f"data root, without one it is {WITHOUT_DATA}.",
    )
    calibration_tokens: int = setting(
        4_096, "Tokens of the calibration text that are read.", unit="tokens", ge=64, le=1_000_000
    )

    @property
    def fitted_on(self) -> str | None:
        """The calibration text."""
        return self.calibration

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide what is fitted, beside the text: by default all."""
        return {name: value for name, value in self.canonical().items() if name != "calibration"}

    def fitted_in(self, calibration: Mapping[str, Tensor] | None, layer: int, name: str) -> Tensor:
        """Return what was fitted for a layer under a name.

        Raises:
            UserError: The method was not fitted.
        """
        if calibration is None:
            raise UserError(
                f"{self.title} has to be fitted on a calibration text first, which this run does not do; "
                "measure it with a sweep."
            )
        return calibration[f"{layer}.{name}"]
