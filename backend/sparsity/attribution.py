"""Policies that rank units by what the dense pass of the same sequence says of them.

Units are MLP neurons, attention heads (all d_h entries kept or dropped) or both. Ranking is per token and
layer unless a policy's scores are comparable between layers. Source of the metrics: Song et al., "Achieving
Sparse Activation in Small Language Models", arXiv 2406.06562.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field

from backend.errors import UserError
from backend.settings import setting
from backend.sparsity.policy import Activations, Context, Policy, Site
from backend.sparsity.selection import kept_count, top_k_mask

if TYPE_CHECKING:
    from torch import Tensor

    from backend.sparsity.dense_pass import DensePass, Units

Share = Annotated[float, Field(gt=0, le=1)]
UnitKind = Literal["mlp", "heads", "both"]


def sites_of(units: UnitKind | None) -> list[Site]:
    """Return the sites at which units are masked; None stands for MLP neurons."""
    sites: dict[UnitKind, list[Site]] = {"heads": ["attn_out"], "both": ["mlp_mid", "attn_out"]}
    return sites.get(units or "mlp", ["mlp_mid"])


PAPER = "Song et al., arXiv 2406.06562"
ORACLE_LIMITS = (
    "An oracle: its mask needs a dense pass of the very token it would accelerate, so it saves no time. "
    "Never on the front."
)


@dataclass
class Cursor:
    """How far one layer is in its sequences: tokens masked so far, by site."""

    at: dict[str, int] = field(default_factory=lambda: {"mlp": 0, "heads": 0})

    def take(self, site: str, mask: Tensor, tokens: int) -> Tensor:
        """Return the masks of a site's next tokens; one row holds for all. # [B, T', N] → [B, tokens, N]"""
        if mask.shape[1] == 1:
            return mask.expand(-1, tokens, -1)
        start = self.at[site]
        self.at[site] += tokens
        return mask[:, start : start + tokens]


class Attribution(Policy):
    """Keep the ``keep`` share of units with the largest score; scores come from the dense pass.

    No projection is charged for the scores: what they cost is said by ``realisable``.
    """

    paper: ClassVar[str] = PAPER
    density_formula: ClassVar[str] = r"\rho"
    limits: ClassVar[str] = ORACLE_LIMITS
    realisable: ClassVar[bool] = False
    whole_heads: ClassVar[bool] = True
    sweep_setting: ClassVar[str | None] = "keep"

    keep: Share | tuple[Share, ...] = setting(
        0.5,
        "Share of units kept per token, one for all layers or one per layer.",
        unit="share of units",
        symbol="ρ",
    )
    units: UnitKind = setting("mlp", "What is kept or dropped: MLP neurons, attention heads, or both.")

    def used_sites(self) -> list[Site]:
        """Return the sites of the chosen units."""
        return sites_of(self.units)

    def scores(self, dense: DensePass) -> Units:
        """Return the units' scores, the largest kept; heads have one each.

        Returns:
            neurons # [B, T' or 1, n] and heads # [B, T' or 1, H] of every layer; one row holds for all T'.
        """
        raise NotImplementedError

    def prepare(self, dense: DensePass) -> Units:
        """Return the masks of the positions after the prompt, as ``Units`` of booleans.

        Returns:
            neurons # [B, T' or 1, n] and heads # [B, T' or 1, H·d_h] of every layer; one row holds for all.
        """
        from backend.sparsity.dense_pass import Units

        if self.units != "mlp" and not dense.anatomy.attentions:
            raise UserError(
                f"{type(dense.model).__name__} has no attention heads that were found; set units to mlp."
            )
        scores = self.scores(dense)
        layers = dense.anatomy.layers
        neurons = self._masks(scores.neurons, layers) if self.units != "heads" else {}
        heads = self._masks(scores.heads, layers) if self.units != "mlp" else {}
        sizes = {layer: attention.head_size for layer, attention in dense.anatomy.attentions.items()}
        heads = {layer: mask.repeat_interleave(sizes[layer], dim=-1) for layer, mask in heads.items()}
        return Units(neurons, heads)

    def keep_of(self, layer: int, layers: int) -> float:
        """Return the share kept in one layer.

        Raises:
            UserError: Values were given per layer, and not one for each.
        """
        if isinstance(self.keep, float):
            return self.keep
        if len(self.keep) != layers:
            raise UserError(
                f"{self.name} was given {len(self.keep)} values per layer, but the model has {layers} layers."
            )
        return self.keep[layer]

    def _masks(self, scores: dict[int, Tensor], layers: int) -> dict[int, Tensor]:
        """Rank per layer. # [B, T' or 1, N]"""
        return {
            layer: top_k_mask(each, kept_count(self.keep_of(layer, layers), each.shape[-1]))
            for layer, each in scores.items()
        }

    def start(self, layer: int, sequences: Sequence[int]) -> Cursor:
        """Return how far the layer is: at the first token after the prompt."""
        return Cursor()

    def mlp_mid(self, activations: Activations, context: Context) -> Tensor | None:
        """Keep the neurons chosen beforehand. # [B, T, n]"""
        mask = context.prepared.neurons.get(context.layer)
        return None if mask is None else context.state.take("mlp", mask, activations.x.shape[1])

    def attn_out(self, x: Tensor, context: Context) -> Tensor | None:
        """Keep the heads chosen beforehand, all entries of each. # [B, T, H·d_h]"""
        mask = context.prepared.heads.get(context.layer)
        return None if mask is None else context.state.take("heads", mask, x.shape[1])

    def expected_density(self) -> float:
        """Return the MLP density these settings stand for (before rounding k)."""
        if self.units == "heads":
            return 1.0
        return self.keep if isinstance(self.keep, float) else sum(self.keep) / len(self.keep)

    @classmethod
    def at_density(cls, density: float) -> Self:
        """Return this policy, keeping that share of neurons."""
        return cls.parse({"keep": density}, cls.name)


def by_head(values: Tensor, head_size: int) -> Tensor:
    """Split a layer's heads apart. # [B, T, H·d_h] → [B, T, H, d_h]"""
    heads: Tensor = values.unflatten(-1, (-1, head_size))
    return heads
