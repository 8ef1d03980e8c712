"""Attribution by a label: the gradient of one token's log-probability, and what is made of it.

``F = log p(label)`` at the token's own position, ``g = ∂F/∂x``; a head's output is o_h, its gradient G_h. The
label is by default the dense model's own greedy token, as in the paper; the true next token, and two wrong
ones as controls, tell how much of a result the label is. Source: Song et al., arXiv 2406.06562, with one
consistent form for heads (the authors' code mixes a mean over d_h with an L2 norm).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator

from backend.settings import setting
from backend.sparsity.attribution import ORACLE_LIMITS, Attribution, by_head
from backend.sparsity.policy import method
from backend.sparsity.selection import kept_count, top_k_mask

if TYPE_CHECKING:
    from torch import Tensor

    from backend.sparsity.dense_pass import DensePass, Units

LabelName = Literal["own", "next", "second", "random"]
LABEL_LIMITS = (
    f"{ORACLE_LIMITS} It looks at the token that is scored: agreement and loss flatter it; KL and the "
    "wrong-label controls show by how much."
)


class LabelAttribution(Attribution):
    """Scores made of activations and of gradients for one label."""

    label_free: ClassVar[bool] = False
    limits: ClassVar[str] = LABEL_LIMITS

    label: LabelName = setting(
        "own",
        "Whose log-probability is attributed: the dense model's own greedy token (the paper's), the true "
        "next token, or, as wrong labels, the dense model's second choice or a random token.",
    )
    seed: int | None = setting(None, "Seed of random labels, by default 0.", ge=0)

    def score(self, x: Tensor, g: Tensor) -> Tensor:
        """Score neurons by their values and gradients. # [B, T', n]"""
        raise NotImplementedError

    def head_score(self, o: Tensor, g: Tensor) -> Tensor:
        """Score heads by their outputs and gradients. # [B, T', H, d_h] → [B, T', H]"""
        raise NotImplementedError

    def scores(self, dense: DensePass) -> Units:
        """Score by the dense pass's activations and gradients, in fp32."""
        return self.scores_of(dense, dense.gradients(self.label, self.seed or 0))

    def scores_of(self, dense: DensePass, g: Units) -> Units:
        """Score by the dense pass's activations and these gradients."""
        from backend.sparsity.dense_pass import Units

        x = dense.activations()
        size = {layer: attention.head_size for layer, attention in dense.anatomy.attentions.items()}
        return Units(
            {layer: self.score(x.neurons[layer], each) for layer, each in g.neurons.items()},
            {
                layer: self.head_score(by_head(x.heads[layer], size[layer]), by_head(each, size[layer]))
                for layer, each in g.heads.items()
            },
        )


class ComparableAttribution(LabelAttribution):
    """Scores in nats, which are comparable between layers: units may be ranked over the whole model."""

    ranking: Literal["layer", "global"] = setting(
        "layer", "Rank the units of each layer, or those of all layers together (a token's budget moves)."
    )

    @model_validator(mode="after")
    def _one_share_for_all(self) -> Self:
        if self.ranking == "global" and not isinstance(self.keep, float):
            raise ValueError("keep must be one share when units are ranked over all layers")
        return self

    def _masks(self, scores: dict[int, Tensor], layers: int) -> dict[int, Tensor]:
        if self.ranking == "layer" or not isinstance(self.keep, float):
            return super()._masks(scores, layers)
        import torch

        every = torch.cat(list(scores.values()), dim=-1)  # [B, T', L·N]
        masks = top_k_mask(every, kept_count(self.keep, every.shape[-1]))
        widths = [each.shape[-1] for each in scores.values()]
        return dict(zip(scores, masks.split(widths, dim=-1), strict=True))


@method
class Gradient(LabelAttribution):
    """Keep the units with the largest signed gradient: a control of the paper, hardly above random."""

    name = "gradient"
    title = "Gradient"
    summary = "Keeps the units whose growth would raise the label's log-probability most."
    equation = r"m = T_k(g_i),\quad m_h = T_k\bigl(\tfrac{1}{d_h}\textstyle\sum_d G_{hd}\bigr)"

    def score(self, x: Tensor, g: Tensor) -> Tensor:
        """Return ``g_i``."""
        return g

    def head_score(self, o: Tensor, g: Tensor) -> Tensor:
        """Return the gradient's mean over the head's entries."""
        return g.mean(-1)


@method
class GradientOutput(ComparableAttribution):
    """Keep the units with the largest ``g_i x_i``: to first order, what F loses without them."""

    name = "gxo"
    title = "GxO"
    summary = "Keeps the units without which the label's log-probability would fall most, to first order."
    equation = r"m = T_k(g_i x_i),\quad m_h = T_k\bigl(\textstyle\sum_d G_{hd}\, o_{hd}\bigr)"

    def score(self, x: Tensor, g: Tensor) -> Tensor:
        """Return ``g_i x_i``."""
        return g * x

    def head_score(self, o: Tensor, g: Tensor) -> Tensor:
        """Return ``Σ_d G_hd o_hd``."""
        return (g * o).sum(-1)


@method
class SNIP(GradientOutput):
    """Keep the units with the largest ``|g_i x_i|``; the Fisher score is its square and ranks the same."""

    name = "snip"
    title = "SNIP / Fisher"
    summary = "Keeps the units without which the label's log-probability would change most, to first order."
    equation = r"m = T_k(|g_i x_i|),\quad m_h = T_k\bigl(|\textstyle\sum_d G_{hd}\, o_{hd}|\bigr)"

    def score(self, x: Tensor, g: Tensor) -> Tensor:
        """Return ``|g_i x_i|``."""
        return super().score(x, g).abs()

    def head_score(self, o: Tensor, g: Tensor) -> Tensor:
        """Return ``|Σ_d G_hd o_hd|``."""
        return super().head_score(o, g).abs()


@method
class CorrectedGradientOutput(GradientOutput):
    """GxO plus the centre of its error: ``g_i x_i + ½|x_i|·‖g‖₂``, g over the layer's neurons.

    Masking neuron i of a shallower layer makes the others' attributions wrong by 0 ≤ e_i ≤ |x_i|·‖g‖₂; the ½
    is the interval's empirical centre.
    """

    name = "corrected_gxo"
    title = "Corrected GxO"
    summary = "GxO corrected for what masking shallower layers does to deeper ones' attributions."
    equation = (
        r"m = T_k\bigl(g_i x_i + \tfrac{1}{2}|x_i|\, \lVert g \rVert_2\bigr),\quad "
        r"m_h = T_k\bigl(\textstyle\sum_d G_{hd}\, o_{hd} + \tfrac{1}{2}\lVert o_h \rVert_2 "
        r"\lVert G \rVert_F\bigr)"
    )
    limits = (
        f"{LABEL_LIMITS} For wide MLPs |ĝ_i| is about 1/√n, so that it ranks almost as magnitude does: the "
        "correlation is measured per layer."
    )

    def score(self, x: Tensor, g: Tensor) -> Tensor:
        """Return ``g_i x_i + ½|x_i|·‖g‖₂``."""
        length: Tensor = g.norm(dim=-1, keepdim=True)
        return super().score(x, g) + 0.5 * x.abs() * length

    def head_score(self, o: Tensor, g: Tensor) -> Tensor:
        """Return ``Σ_d G_hd o_hd + ½‖o_h‖₂·‖G‖_F``."""
        length: Tensor = o.norm(dim=-1) * g.flatten(-2).norm(dim=-1, keepdim=True)
        return super().head_score(o, g) + 0.5 * length
