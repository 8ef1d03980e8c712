"""Measured latency: batch-one decoding on this machine, with kernels that skip what the policy prunes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from backend.errors import UserError
from backend.experiments.evaluations.kinds import Evaluation, Outcome, evaluation_kind
from backend.settings import setting
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from backend.experiments.laboratory import Laboratory

FEWEST_TOKENS = 64


@evaluation_kind
class LatencyEvaluation(Evaluation):
    """Batch-one decoding, in turns with the dense model in the same run, fed with a text's tokens."""

    kind = "latency"
    on_this_machine = True

    prompt: int = setting(128, "Tokens of the prompt, which is not timed.", unit="tokens", ge=1)
    tokens: int = setting(
        128, "Tokens timed in each round, of the policy and of dense.", unit="tokens", ge=FEWEST_TOKENS
    )
    warm_up: int = setting(8, "Tokens decoded before timing, in each round.", unit="tokens", ge=0)
    rounds: int = setting(3, "How often the whole is repeated; medians are over all rounds.", ge=1)
    batch: int = setting(1, "Sequences decoded at once; column skips pay off for one alone.", ge=1)
    execution: Literal["gathered", "masked"] = setting(
        "gathered", "Gathered reads only the chosen weights; masked computes all, for comparison."
    )
    prefill: Literal["dense", "sparse"] = setting("dense", "Whether the prompt is read dense or pruned.")
    repeat: int = setting(0, "A number that makes the same measurement a new one.", ge=0)

    @model_validator(mode="after")
    def _one_sequence(self) -> Self:
        if self.batch > 1:
            raise ValueError(
                f"batch {self.batch} cannot be timed: the sequences of a batch choose different weights, so "
                "their union would be read; latency is measured for batch 1"
            )
        return self

    @property
    def steps(self) -> int:
        """Number of rounds."""
        return self.rounds

    def check(self, policy: Policy) -> None:
        """Refuse a policy whose latency would be a fiction (an oracle)."""
        from backend.decoding.refusal import refuse_prefill, refuse_unreal

        refuse_unreal(policy)
        refuse_prefill(policy, self.prefill)

    def outcomes(self, laboratory: Laboratory, model: str, policy: Policy) -> Iterator[Outcome]:
        """Time the policy round by round."""
        from backend.decoding.latency import measure_latency
        from backend.evaluation.windows import cut_windows
        from backend.experiments.calibration import calibrate

        subject = laboratory.subject(model, self.dtype)
        length = self.prompt + self.warm_up + self.tokens
        limit = getattr(subject.loaded.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length > limit:
            raise UserError(
                f"Prompt, warm-up and timed tokens come to {length:,}, but the model's context holds "
                f"{limit:,}."
            )
        windows = cut_windows(laboratory.text(self.text), subject.loaded.tokenizer, 1, length)
        found = calibrate(laboratory, model, self.dtype, policy, windows.ids.tolist())
        outcomes = measure_latency(
            subject.engine,
            policy,
            windows.ids[0],
            prompt=self.prompt,
            warm_up=self.warm_up,
            rounds=self.rounds,
            int8=self.dtype == "int8",
            execution=self.execution,
            prefill=self.prefill,
            calibration=found.fitted,
        )
        yield from found.noted(outcomes)
