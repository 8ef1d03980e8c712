"""How alike two rankings of neurons are: a policy's scores beside output magnitude, layer by layer.

Per token and layer: Spearman's rank correlation over the layer's neurons, and the share of the largest
``keep·n`` that both rankings have in common (chance: ``keep``). Both are means over tokens; standard errors
are over windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from backend.evaluation.fidelity import DenseReference
from backend.evaluation.statistics import Estimate, estimate
from backend.sparsity.attribution import Attribution
from backend.sparsity.dense_magnitude import DenseMagnitude
from backend.sparsity.engine import MaskedEngine
from backend.sparsity.selection import kept_count, top_k_mask

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.events import Measurement

METRICS = ("rank_correlation", "top_overlap")
UNITS = {"rank_correlation": "Spearman's ρ", "top_overlap": "share of kept neurons"}


def layer_metric(metric: str, layer: int) -> str:
    """Return the name under which one layer's value is stored: "rank_correlation_07"."""
    return f"{metric}_{layer:02d}"


@dataclass
class Ranks:
    """Likeness to magnitude of the windows so far.

    Attributes:
        how: How a figure of this policy was got.
        by_layer: Stored name → one value a window.
        tokens: Tokens of each window.
    """

    how: Literal["measured", "oracle"]
    by_layer: dict[str, list[float]] = field(default_factory=dict)
    tokens: list[int] = field(default_factory=list)

    def add(self, scores: dict[int, Tensor], magnitude: dict[int, Tensor], keep: float) -> None:
        """Add one window. # both: layer → [B, T', n]"""
        found: dict[str, dict[int, float]] = {metric: {} for metric in METRICS}
        for layer, score in scores.items():
            other = magnitude[layer]
            found["rank_correlation"][layer] = float(rank_correlation(score, other).mean())
            found["top_overlap"][layer] = float(top_overlap(score, other, keep).mean())
            rows = score.shape[:-1].numel()
        self.tokens.append(rows)
        for metric, layers in found.items():
            self.by_layer.setdefault(metric, []).append(sum(layers.values()) / len(layers))
            for layer, value in layers.items():
                self.by_layer.setdefault(layer_metric(metric, layer), []).append(value)

    @property
    def windows(self) -> dict[str, list[float]]:
        """The means over layers, one value a window."""
        return {metric: self.by_layer[metric] for metric in METRICS if metric in self.by_layer}

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return the means over layers and each layer's values, as they are stored."""
        found: list[Measurement] = []
        for name, values in self.by_layer.items():
            each: Estimate = estimate(values, self.tokens)
            unit = next(unit for metric, unit in UNITS.items() if name.startswith(metric))
            found.append(
                {
                    "metric": name,
                    "value": each.value,
                    "stderr": each.stderr,
                    "n": each.n,
                    "unit": unit,
                    "how": self.how,
                }
            )
        return found


def evaluate_ranks(engine: MaskedEngine, policy: Attribution, reference: DenseReference) -> Iterator[Ranks]:
    """Compare a policy's scores of MLP neurons with output magnitude, window by window.

    Args:
        engine: The model.
        policy: The policy; its ``keep`` is the size of the top set.
        reference: The windows.

    Yields:
        The growing result, once a window.
    """
    import torch

    result = Ranks(policy.how)
    for index in range(len(reference.windows)):
        dense = reference.dense_pass(engine, index)
        scores = policy.scores(dense).neurons
        with torch.inference_mode():
            keep = policy.keep_of(0, 1) if isinstance(policy.keep, float) else policy.expected_density()
            result.add(scores, DenseMagnitude().scores(dense).neurons, keep)
        yield result


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return Spearman's ρ of each row, ties by the lower index. # [..., N] → [...]"""
    ranks = [each.argsort(dim=-1, stable=True).argsort(dim=-1).double() for each in (first, second)]
    size = first.shape[-1]
    distance = (ranks[0] - ranks[1]).square().sum(-1)
    correlation: Tensor = 1 - 6 * distance / (size * (size * size - 1))
    return correlation


def top_overlap(first: Tensor, second: Tensor, keep: float) -> Tensor:
    """Return the share of each row's largest ``keep·N`` entries that both have. # [..., N] → [...]"""
    k = kept_count(keep, first.shape[-1])
    both = top_k_mask(first, k) & top_k_mask(second, k)
    return both.sum(-1).double() / k
