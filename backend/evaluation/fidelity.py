"""Perplexity of a policy and its fidelity to the dense model, window by window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from backend.evaluation.dense_passes import DensePasses
from backend.evaluation.scoring import DenseScores, TokenScores, score_dense, score_sparse
from backend.evaluation.statistics import Estimate, estimate
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
                first = self.windows.first_scored[index]
                self.scores[index] = score_dense(
                    engine.anatomy.head, _predicting(hidden, first), _targets(engine, self.windows, index)
                )
        return self.scores[index]

    def run(
        self, engine: MaskedEngine, policy: Policy, index: int, calibration: Any = None
    ) -> tuple[Tensor, Reading]:
        """Run one window under a policy; return its final hidden states # [1, W, d] and what was read."""
        dense = self.dense_pass(engine, index)
        return engine.hidden_states(
            policy,
            dense.input_ids,
            sequences=(index,),
            calibration=calibration,
            prompt=dense.prompt,
            dense=dense,
        )

    def dense_pass(self, engine: MaskedEngine, index: int) -> DensePass:
        """Return the dense pass of one window."""
        ids = _row(engine, self.windows, index)
        return self.passes.of(
            self, index, lambda: DensePass(engine.model, engine.anatomy, ids, self.windows.prompt)
        )


@dataclass
class Fidelity:
    """Scores of the windows done so far, and what was read for them."""

    policy: Policy
    reading: Reading
    counts: list[int] = field(default_factory=list)
    windows: dict[str, list[float]] = field(
        default_factory=lambda: {"nll": [], "delta_nll": [], "kl": [], "agreement": []}
    )

    def add(self, scores: TokenScores, dense: DenseScores) -> None:
        """Add one window."""
        self.counts.append(len(scores.nll))
        self.windows["nll"].append(float(scores.nll.mean()))
        self.windows["delta_nll"].append(float((scores.nll - dense.nll).mean()))
        self.windows["kl"].append(float(scores.kl.mean()))
        self.windows["agreement"].append(float(scores.agrees.double().mean()))

    def estimate(self, metric: str) -> Estimate:
        """Return the mean of ``nll``, ``delta_nll``, ``kl`` or ``agreement`` with its standard error."""
        return estimate(self.windows[metric], self.counts)

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored.

        Args:
            value_bytes: Bytes of one weight as it ran.
        """
        nll = self.estimate("nll")
        perplexity = math.exp(nll.value)
        spread = None if nll.stderr is None else perplexity * nll.stderr
        how = self.policy.how
        found = [self._measurement("perplexity", Estimate(perplexity, spread, nll.n), "", how)]
        units = {
            "nll": "nats/token",
            "delta_nll": "nats/token",
            "kl": "nats/token",
            "agreement": "share of tokens",
        }
        found += [self._measurement(name, self.estimate(name), unit, how) for name, unit in units.items()]
        read = {
            "mlp_density": (self.reading.mlp_density, "share of MLP weights"),
            "model_density": (self.reading.model_density, "share of all weights"),
            "bytes_per_token": (self.reading.bytes_per_token(value_bytes), "B/token"),
            **self.reading.counted(value_bytes),
        }
        tokens = self.reading.tokens
        return found + [
            self._measurement(name, Estimate(value, None, tokens), unit, how)
            for name, (value, unit) in read.items()
        ]

    @staticmethod
    def _measurement(
        metric: str, found: Estimate, unit: str, how: Literal["measured", "oracle"]
    ) -> Measurement:
        return {
            "metric": metric,
            "value": found.value,
            "stderr": found.stderr,
            "n": found.n,
            "unit": unit,
            "how": how,
        }


def evaluate(
    engine: MaskedEngine, policy: Policy, reference: DenseReference, calibration: Any = None
) -> Iterator[Fidelity]:
    """Score a policy window by window.

    Between two windows the model is dense and untouched, so the caller may use it for something else.

    Args:
        engine: The model.
        policy: The policy.
        reference: The dense scores of the same windows.
        calibration: What the policy was fitted to.

    Yields:
        The growing result, once a window.
    """
    import torch

    result = Fidelity(policy, Reading(engine.anatomy, policy))
    for index in range(len(reference.windows)):
        dense = reference.of(engine, index)
        hidden, reading = reference.run(engine, policy, index, calibration)
        with torch.inference_mode():
            states = _predicting(hidden, reference.windows.first_scored[index])
            result.add(score_sparse(engine.anatomy.head, states, dense), dense)
        result.reading.merge(reading)
        yield result


def _row(engine: MaskedEngine, windows: Windows, index: int) -> Tensor:
    return windows.ids[index : index + 1].to(engine.model.device)


def _predicting(hidden: Tensor, first: int) -> Tensor:
    """Return the states that predict the scored tokens. # [1, W, d] → [N, d]"""
    return hidden[0, first - 1 : -1]


def _targets(engine: MaskedEngine, windows: Windows, index: int) -> Tensor:
    return windows.ids[index, windows.first_scored[index] :].to(engine.model.device)
