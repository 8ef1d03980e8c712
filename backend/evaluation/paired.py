"""Scores that are paired, window by window, with those of a reference run of the same model and text."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from backend.evaluation.scoring import DenseScores, TokenScores
from backend.evaluation.statistics import Estimate, estimate
from backend.evaluation.windows import Windows
from backend.methods import Method

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.events import Measurement

UNITS = {
    "nll": "nats/token",
    "delta_nll": "nats/token",
    "kl": "nats/token",
    "agreement": "share of tokens",
}


@dataclass
class PairedScores:
    """Scores of the windows done so far.

    Attributes:
        policy: Whose they are.
        counts: Scored tokens of each window.
        windows: Metric → one value a window.
    """

    policy: Method
    counts: list[int] = field(default_factory=list)
    windows: dict[str, list[float]] = field(default_factory=lambda: {metric: [] for metric in UNITS})

    def add(self, scores: TokenScores, reference: DenseScores) -> None:
        """Add one window, beside the reference's scores of it (the dense model, the original routing)."""
        self.counts.append(len(scores.nll))
        self.windows["nll"].append(float(scores.nll.mean()))
        self.windows["delta_nll"].append(float((scores.nll - reference.nll).mean()))
        self.windows["kl"].append(float(scores.kl.mean()))
        self.windows["agreement"].append(float(scores.agrees.double().mean()))

    def estimate(self, metric: str) -> Estimate:
        """Return the mean of ``nll``, ``delta_nll``, ``kl`` or ``agreement`` with its standard error."""
        return estimate(self.windows[metric], self.counts)

    def quality(self) -> list[Measurement]:
        """Return perplexity and the paired metrics, as they are stored."""
        nll = self.estimate("nll")
        perplexity = math.exp(nll.value)
        spread = None if nll.stderr is None else perplexity * nll.stderr
        how = self.policy.how
        found = [as_measurement("perplexity", Estimate(perplexity, spread, nll.n), "", how)]
        return found + [as_measurement(name, self.estimate(name), unit, how) for name, unit in UNITS.items()]


def as_measurement(
    metric: str, found: Estimate, unit: str, how: Literal["measured", "oracle"]
) -> Measurement:
    """Return an estimate as it is stored."""
    return {
        "metric": metric,
        "value": found.value,
        "stderr": found.stderr,
        "n": found.n,
        "unit": unit,
        "how": how,
    }


def window_ids(windows: Windows, index: int, device: Any) -> Tensor:
    """Return one window's token ids. # [1, W]"""
    return windows.ids[index : index + 1].to(device)


def predicting(hidden: Tensor, windows: Windows, index: int) -> Tensor:
    """Return the states that predict a window's scored tokens. # [1, W, d] → [N, d]"""
    return hidden[0, windows.first_scored[index] - 1 : -1]


def targets(windows: Windows, index: int, device: Any) -> Tensor:
    """Return a window's scored tokens. # [N]"""
    return windows.ids[index, windows.first_scored[index] :].to(device)
