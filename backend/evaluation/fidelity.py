"""Perplexity of a policy and its fidelity to the dense model, window by window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from backend.evaluation.dense_passes import DensePasses
from backend.evaluation.paired import PairedScores, as_measurement, predicting, targets, window_ids
from backend.evaluation.scoring import DenseScores, score_dense, score_sparse
from backend.evaluation.statistics import Estimate
from backend.evaluation.windows import Windows
from backend.sparsity import Policy, make_policy
from backend.sparsity.accounting import Reading
from backend.sparsity.dense_pass import DensePass
from backend.sparsity.engine import MaskedEngine

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.events import Measurement


@dataclass
class DenseReference:
    """The dense model's scores of a text's windows, made once and shared by every cell of a run.

    Attributes:
        windows: The windows.
        passes: Keeps dense passes between cells, for policies that look at them.
        scores: One entry a window, filled in as they are first needed.
    """

    windows: Windows
    passes: DensePasses = field(default_factory=DensePasses)
    scores: dict[int, DenseScores] = field(default_factory=dict)

    def of(self, engine: MaskedEngine, index: int) -> DenseScores:
        """Return the dense scores of one window, computing them the first time."""
        if index not in self.scores:
            import torch

            with torch.inference_mode():
                hidden, _ = self.run(engine, make_policy("dense", {}), index)
                self.scores[index] = score_dense(
                    engine.anatomy.head,
                    predicting(hidden, self.windows, index),
                    targets(self.windows, index, engine.model.device),
                )
        return self.scores[index]

    def run(self, engine: MaskedEngine, policy: Policy, index: int) -> tuple[Tensor, Reading]:
        """Run one window under a policy; return its final hidden states # [1, W, d] and what was read."""
        dense = self.dense_pass(engine, index)
        return engine.hidden_states(
            policy, dense.input_ids, sequences=(index,), prompt=dense.prompt, dense=dense
        )

    def dense_pass(self, engine: MaskedEngine, index: int) -> DensePass:
        """Return the dense pass of one window."""
        ids = window_ids(self.windows, index, engine.model.device)
        return self.passes.of(
            self, index, lambda: DensePass(engine.model, engine.anatomy, ids, self.windows.prompt)
        )


@dataclass(kw_only=True)
class Fidelity(PairedScores):
    """Scores of the windows done so far beside the dense model's, and what was read for them."""

    reading: Reading

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored.

        Args:
            value_bytes: Bytes of one weight as it ran.
        """
        read = {
            "mlp_density": (self.reading.mlp_density, "share of MLP weights"),
            "model_density": (self.reading.model_density, "share of all weights"),
            "bytes_per_token": (self.reading.weights_read * value_bytes, "B/token"),
            **self.reading.counted(value_bytes),
        }
        tokens = self.reading.tokens
        return self.quality() + [
            as_measurement(name, Estimate(value, None, tokens), unit, self.policy.how)
            for name, (value, unit) in read.items()
        ]


def evaluate(engine: MaskedEngine, policy: Policy, reference: DenseReference) -> Iterator[Fidelity]:
    """Score a policy window by window.

    Between two windows the model is dense and untouched, so the caller may use it for something else.

    Args:
        engine: The model.
        policy: The policy.
        reference: The dense scores of the same windows.

    Yields:
        The growing result, once a window.
    """
    import torch

    result = Fidelity(policy=policy, reading=Reading(engine.anatomy, policy))
    for index in range(len(reference.windows)):
        dense = reference.of(engine, index)
        hidden, reading = reference.run(engine, policy, index)
        with torch.inference_mode():
            states = predicting(hidden, reference.windows, index)
            result.add(score_sparse(engine.anatomy.head, states, dense), dense)
        result.reading.merge(reading)
        yield result
