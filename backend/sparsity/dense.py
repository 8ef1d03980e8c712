"""The dense model: the baseline that every other policy is compared with."""

from __future__ import annotations

from typing import Self

from backend.errors import UserError
from backend.sparsity.policy import Policy, method


@method
class Dense(Policy):
    """Read everything."""

    name = "dense"
    title = "Dense"
    summary = "The model as it is: every weight is read for every token."
    equation = r"y = W_d\,\bigl(\mathrm{act}(W_g x) \odot W_u x\bigr)"
    density_formula = "1"
    paper = ""

    @classmethod
    def density_floor(cls) -> float:
        """Return 1: nothing is ever skipped."""
        return 1.0

    def expected_density(self) -> float:
        """Return 1."""
        return 1.0

    @classmethod
    def at_density(cls, density: float) -> Self:
        """Return the policy; only density 1 can be asked of it."""
        if density != 1:
            raise UserError("The dense model has MLP density 1 and no other.")
        return cls()
