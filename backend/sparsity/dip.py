"""Dynamic Input Pruning (DIP): prune the MLP's input, then its neurons.

Source: Federici et al., "Efficient LLM Inference using Dynamic Input Pruning and Cache-Aware Masking",
arXiv 2412.01380 (MLSys 2025).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from backend.errors import UserError
from backend.settings import setting
from backend.sparsity.glu import DIP_PAPER
from backend.sparsity.policy import Activations, Context, Policy, Ranking, Site, method
from backend.sparsity.selection import kept_count, top_k_mask

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Field(gt=0, le=1)]
SPLIT_SLOPE = 0.9849930711
SPLIT_OFFSET = 0.2997647759


def split_density(density: float) -> tuple[float, float]:
    """Split a target MLP density D into the shares of inputs and of neurons kept (the paper's logit fit).

    ``ρ_in = σ(0.98499·logit(D) + 0.29976)``, ``ρ_glu = 3·D − 2·ρ_in``, so that (2ρ_in + ρ_glu)/3 = D;
    D = 1 gives (1, 1) by definition.

    Args:
        density: D, in (0, 1].

    Returns:
        (ρ_in, ρ_glu), both in (0, 1].
    """
    if density == 1:
        return 1.0, 1.0
    logit = math.log(density / (1 - density))
    input_keep = 1 / (1 + math.exp(-(SPLIT_SLOPE * logit + SPLIT_OFFSET)))
    return input_keep, 3 * density - 2 * input_keep


@method
class DIP(Policy):
    """Keep the largest inputs ``|x|``, then the largest neurons ``|â|`` computed from them."""

    name = "dip"
    title = "DIP"
    version = 1
    summary = "Prunes the MLP's input by magnitude, then its neurons by the activations that remain."
    equation = (
        r"m_{in} = T_{k_{in}}(|x|),\ \hat a = \mathrm{act}(W_g(m_{in} \odot x)) \odot W_u(m_{in} \odot x),\ "
        r"m_{glu} = T_{k_{glu}}(|\hat a|),\ \hat y = W_d(m_{glu} \odot \hat a)"
    )
    density_formula = r"(2\rho_{in} + \rho_{glu})/3"
    paper = DIP_PAPER
    limits = "Column skips pay off only with input-major weights; gains are gains of batch-one decoding."
    needs = frozenset({"gate", "up"})
    sweep_setting: ClassVar[str | None] = "density"

    density: float | None = setting(
        None,
        "Target share of MLP weights read, split over inputs and neurons by the paper's fit.",
        unit="share of MLP weights",
        symbol="D",
        gt=0,
        le=1,
    )
    input_keep: Share | tuple[Share, ...] | None = setting(
        None,
        "Share of inputs kept, one for all layers or one per layer.",
        unit="share of inputs",
        symbol="ρ_in",
    )
    neuron_keep: Share | tuple[Share, ...] | None = setting(
        None,
        "Share of neurons kept, one for all layers or one per layer.",
        unit="share of neurons",
        symbol="ρ_glu",
    )

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        free = (self.input_keep is not None, self.neuron_keep is not None)
        if self.density is not None and any(free):
            raise ValueError("give either density or input_keep and neuron_keep, not both")
        if self.density is None and not all(free):
            raise ValueError("give density, or both input_keep and neuron_keep")
        return self

    @classmethod
    def density_floor(cls) -> float:
        """Return 0: both masks can be as small as one entry."""
        return 0.0

    def expected_density(self) -> float:
        """Return (2ρ_in + ρ_glu)/3, averaged over the layers when they differ."""
        if self.density is not None:
            return self.density
        return (2 * _mean(self.input_keep) + _mean(self.neuron_keep)) / 3

    @classmethod
    def at_density(cls, density: float) -> Self:
        """Return DIP at this target density, split by the paper's fit."""
        return cls.parse({"density": density}, cls.name)

    def keeps(self, layer: int, layers: int) -> tuple[float, float]:
        """Return (ρ_in, ρ_glu) of one layer.

        Raises:
            UserError: Values were given per layer, and not one for each.
        """
        if self.density is not None:
            return split_density(self.density)
        return _of_layer(self.input_keep, layer, layers), _of_layer(self.neuron_keep, layer, layers)

    def mlp_in(self, x: Tensor, context: Context) -> Tensor:
        """Keep the largest ``|x|``; one mask serves W_g and W_u. # [B, T, d]"""
        return top_k_mask(x.abs(), self._kept("mlp_in", x.shape[-1], context))

    def mlp_mid(self, activations: Activations, context: Context) -> Tensor:
        """Keep the largest ``|â|`` of the input-pruned activations. # [B, T, n]"""
        assert activations.neurons is not None
        neurons = activations.neurons
        return top_k_mask(neurons.abs(), self._kept("mlp_mid", neurons.shape[-1], context))

    def as_ranking(self, site: Site, context: Context) -> Ranking | None:
        """Rank inputs by ``|x|`` and neurons by ``|â|``."""
        assert context.mlp is not None
        if site == "mlp_in":
            return Ranking("x", self._kept(site, context.mlp.hidden_size, context))
        return Ranking("neurons", self._kept(site, context.mlp.neurons, context))

    def _kept(self, site: Site, size: int, context: Context) -> int:
        input_keep, neuron_keep = self.keeps(context.layer, context.layers)
        return kept_count(input_keep if site == "mlp_in" else neuron_keep, size)


def _mean(share: float | tuple[float, ...] | None) -> float:
    assert share is not None
    return share if isinstance(share, float) else sum(share) / len(share)


def _of_layer(share: float | tuple[float, ...] | None, layer: int, layers: int) -> float:
    assert share is not None
    if isinstance(share, float):
        return share
    if len(share) != layers:
        raise UserError(f"dip was given {len(share)} values per layer, but the model has {layers} layers.")
    return share[layer]
