"""Random pruning: the control that every score has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backend.seeds import mixed_seed
from backend.settings import setting
from backend.sparsity.attribution import UnitKind, sites_of
from backend.sparsity.neuron_pruning import NeuronPruning
from backend.sparsity.policy import Activations, Context, Site, method
from backend.sparsity.selection import kept_count, top_k_mask

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

    control = True
    whole_heads = True

    seed: int = setting(0, "Seed of the draws.", ge=0)
    units: UnitKind | None = setting(
        None, "What is kept or dropped: MLP neurons (by default), attention heads, or both."
    )

    def used_sites(self) -> list[Site]:
        """Return the sites of the chosen units."""
        return sites_of(self.units)

    def start(self, layer: int, sequences: Sequence[int]) -> dict[str, list[Any]]:
        """Return one generator a sequence and site, seeded by both and the layer: chunks change nothing."""
        import torch

        def seeded(*numbers: int) -> Any:
            return torch.Generator().manual_seed(mixed_seed(*numbers))

        return {
            "neurons": [seeded(self.seed, layer, number) for number in sequences],
            "heads": [seeded(self.seed, layer, number, 1) for number in sequences],
        }

    def mlp_mid(self, activations: Activations, context: Context) -> Tensor | None:
        """Keep neurons drawn at random. # [B, T, n]"""
        return None if self.units == "heads" else super().mlp_mid(activations, context)

    def attn_out(self, x: Tensor, context: Context) -> Tensor | None:
        """Keep heads drawn at random, all entries of each. # [B, T, H·d_h]"""
        if self.units not in ("heads", "both"):
            return None
        assert context.heads is not None
        scores = _draws(context.state["heads"], x.shape[1], context.heads)
        mask = top_k_mask(scores, kept_count(self.keep, context.heads)).to(x.device)
        return mask.repeat_interleave(x.shape[-1] // context.heads, dim=-1)

    def expected_density(self) -> float | None:
        """Return the MLP density these settings stand for (before rounding k)."""
        return 1.0 if self.units == "heads" else super().expected_density()

    def score(self, activations: Activations, context: Context) -> Tensor:
        """Draw uniform scores. # [B, T, n]"""
        assert context.mlp is not None
        draws = _draws(context.state["neurons"], activations.x.shape[1], context.mlp.neurons)
        return draws.to(activations.x.device)


def _draws(generators: list[Any], tokens: int, size: int) -> Tensor:
    """Return uniform numbers, a row a token, a generator a sequence. # [B, tokens, size]"""
    import torch

    return torch.stack([torch.rand(tokens, size, generator=each) for each in generators])
