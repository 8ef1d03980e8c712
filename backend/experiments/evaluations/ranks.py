"""How alike an attribution ranks neurons to output magnitude, layer by layer, on windows of a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from backend.errors import UserError
from backend.experiments.evaluations.fidelity import FidelityEvaluation
from backend.experiments.evaluations.kinds import Outcome, evaluation_kind
from backend.sparsity.attribution import Attribution
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from backend.experiments.laboratory import Laboratory


@evaluation_kind
class RanksEvaluation(FidelityEvaluation):
    """Rank correlation and top-set overlap of a policy's neuron scores with output magnitude, per layer."""

    kind = "ranks"

    def check(self, policy: Policy) -> None:
        """Raise ``UserError`` if a policy has no scores of its own for every token."""
        super().check(policy)
        if not isinstance(policy, Attribution) or policy.needs_prompt:
            raise UserError(f"{policy.title} has no scores of every token to compare with magnitude.")

    def outcomes(self, laboratory: Laboratory, model: str, policy: Policy) -> Iterator[Outcome]:
        """Compare rankings window by window."""
        from backend.evaluation.ranks import evaluate_ranks

        assert isinstance(policy, Attribution)
        subject = laboratory.subject(model, self.dtype)
        yield from evaluate_ranks(subject.engine, policy, laboratory.reference(subject, self))
