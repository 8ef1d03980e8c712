"""Expected Fisher: attribution for the labels that the dense model itself would draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.settings import setting
from backend.sparsity.attribution import Attribution, by_head
from backend.sparsity.policy import method

if TYPE_CHECKING:
    from backend.sparsity.dense_pass import DensePass, Units


@method
class ExpectedFisher(Attribution):
    """Keep the units with the largest ``E_{y~p}[(∂log p(y)/∂x_i · x_i)²]``, by a few drawn labels.

    The mean over draws is unbiased. (KL to the dense model cannot serve: its gradient at the dense point is
    zero; this is its curvature.)
    """

    name = "expected_fisher"
    title = "Expected Fisher"
    summary = "SNIP's square for labels drawn from the dense model's own distribution: label-free, no saving."
    equation = r"m = T_k\Bigl(\mathbb{E}_{y \sim p}\bigl[(\partial_{x_i} \log p(y) \cdot x_i)^2\bigr]\Bigr)"

    samples: int = setting(4, "Labels drawn a token, each one backward pass.", unit="labels", ge=1, le=64)
    seed: int = setting(0, "Seed of the draws.", ge=0)

    def scores(self, dense: DensePass) -> Units:
        """Score by the mean square over drawn labels."""
        import torch

        from backend.sparsity.dense_pass import Units

        x = dense.activations()
        size = {layer: attention.head_size for layer, attention in dense.anatomy.attentions.items()}
        drawn = dense.sampled_gradients(self.samples, self.seed)
        neurons = {
            layer: torch.stack([(g.neurons[layer] * each).square() for g in drawn]).mean(0)
            for layer, each in x.neurons.items()
        }
        heads = {
            layer: torch.stack(
                [by_head(g.heads[layer] * each, size[layer]).sum(-1).square() for g in drawn]
            ).mean(0)
            for layer, each in x.heads.items()
        }
        return Units(neurons, heads)
