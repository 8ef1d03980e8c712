"""Random pruning: the control that every score has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backend.settings import setting
from backend.sparsity.neuron_pruning import NeuronPruning
from backend.sparsity.policy import Activations, Context, method
from backend.sparsity.seeds import mixed_seed

if TYPE_CHECKING:
    from torch import Tensor


@method
class RandomPruning(NeuronPruning):
    """Keep k neurons drawn anew for every token; the draw is known beforehand, so nothing else is read."""

    name = "random"
    title = "Random"
    summary = "Keeps neurons drawn at random for every token: a control, not a method."
    equation = r"m = T_k(u),\quad u_i \sim U(0, 1)"
    density_formula = r"\rho"
    paper = ""
    limits = (
        "A control. Its draw depends on the seed, the layer, the sequence and the token, on nothing else."
    )

    seed: int = setting(0, "Seed of the draws.", ge=0)

    def start(self, layer: int, sequences: Sequence[int]) -> list[Any]:
        """Return one generator a sequence, seeded by (seed, layer, sequence): chunking changes nothing."""
        import torch

        return [torch.Generator().manual_seed(mixed_seed(self.seed, layer, number)) for number in sequences]

    def score(self, activations: Activations, context: Context) -> Tensor:
        """Draw uniform scores. # [B, T, n]"""
        import torch

        assert context.mlp is not None
        tokens = activations.x.shape[1]
        draws = [torch.rand(tokens, context.mlp.neurons, generator=each) for each in context.state]
        return torch.stack(draws).to(activations.x.device)
