"""Perplexity and fidelity to the dense model on windows of a text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from pydantic import model_validator

from backend.errors import UserError
from backend.experiments.evaluations.kinds import Evaluation, Outcome, evaluation_kind
from backend.settings import setting

if TYPE_CHECKING:
    from backend.experiments.laboratory import Laboratory


@evaluation_kind
class FidelityEvaluation(Evaluation):
    """Perplexity and fidelity to the dense model on windows of a text."""

    kind = "fidelity"

    tokens: int = setting(16_384, "Tokens fed: tokens/window windows are evaluated.", unit="tokens", ge=2)
    window: int = setting(1_024, "Tokens of one window; its first token is not scored.", unit="tokens", ge=2)
    stride: int | None = setting(
        None,
        "Distance between the starts of windows; below the window's length, only the last `stride` tokens "
        "of later windows are scored. By default the window's length.",
        unit="tokens",
        ge=1,
    )
    prompt: int | None = setting(
        None,
        "First tokens of each window that run dense, as a prompt would; the rest is sparse and scored. By "
        "default the whole window is sparse.",
        unit="tokens",
        ge=1,
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tokens < self.window:
            raise ValueError(f"tokens ({self.tokens}) must hold at least one window ({self.window})")
        if self.stride is not None and self.stride > self.window:
            raise ValueError(f"stride ({self.stride}) must not exceed the window ({self.window})")
        if self.prompt is not None and self.prompt > self.window - 2:
            raise ValueError(f"prompt ({self.prompt}) must leave two tokens of the window ({self.window})")
        return self

    @property
    def steps(self) -> int:
        """Number of windows: tokens fed over tokens a window."""
        return self.tokens // self.window

    def check(self, policy: Any) -> None:
        """Raise ``UserError`` if a policy that makes its masks of a prompt is given none."""
        if policy.needs_prompt and self.prompt is None:
            raise UserError(
                f"{policy.title} makes its masks of a prompt; give the evaluation one (prompt: 128)."
            )

    def outcomes(self, laboratory: Laboratory, model: str, policy: Any) -> Iterator[Outcome]:
        """Score a policy window by window."""
        from backend.evaluation.fidelity import evaluate

        subject = laboratory.subject(model, self.dtype)
        yield from evaluate(subject.engine, policy, laboratory.reference(subject, self))
