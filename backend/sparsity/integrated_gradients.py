r"""Integrated gradients: the gradient averaged along the way from nothing to what a layer's units hold.

``x_i · (1/N) Σ_{n=1..N} ∂F/∂x_i`` at ``x^l ← (n/N)·x^l``, baseline 0, one layer scaled at a time and only at
the position that is attributed; its context is the dense model's. (Sundararajan et al., arXiv 1703.01365; a
metric of sparse activation in Song et al., arXiv 2406.06562.) All positions and several scales of a layer
share one pass: row 0 runs dense, each further row has the layer's units scaled at every position, and
own-token attention gives each position of such a row the context of row 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.settings import setting
from backend.sparsity.label_attribution import LABEL_LIMITS, GradientOutput
from backend.sparsity.own_token import BESIDE_FIRST, own_token_attention
from backend.sparsity.policy import method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from backend.sparsity.dense_pass import DensePass, Labeller, Units

TOKENS_AT_ONCE = 1024
"""Positions of a sequence times scales that one pass may hold: about 2 GB for the default model."""


@method
class IntegratedGradients(GradientOutput):
    """GxO with the gradient averaged over N scales of the layer's units, from 1/N to 1.

    Its cost: a forward and a backward pass of the layers above for each scale of each layer, for neurons and
    for heads: about L·N/2 times that of GxO.
    """

    name = "integrated_gradients"
    title = "Integrated gradients"
    summary = "GxO with the gradient averaged along the way from no activation to the layer's own."
    equation = (
        r"m = T_k\bigl(x_i \tfrac{1}{N} \textstyle\sum_{n=1}^{N} "
        r"\partial F / \partial x_i \big|_{x^l \leftarrow (n/N)\, x^l}\bigr)"
    )
    limits = f"{LABEL_LIMITS} It takes N passes for each layer: 600 for 30 layers and 20 scales."

    steps: int = setting(20, "Scales from 1/N to 1 at which gradients are taken.", symbol="N", ge=1, le=1000)

    def scores(self, dense: DensePass) -> Units:
        """Score by the dense pass's activations and averaged gradients."""
        seed = self.seed or 0
        key = ("integrated", self.label, seed, self.steps, self.units)
        return self.scores_of(dense, dense.kept(key, lambda: self._averaged(dense, seed)))

    def _averaged(self, dense: DensePass, seed: int) -> Units:
        """Return the gradients' means over the scales. # [B, T', n] and [B, T', H·d_h]"""
        from backend.sparsity.dense_pass import Units

        labels = dense.labels(self.label, seed)
        places = {"neurons": {layer: mlp.module.down_proj for layer, mlp in dense.anatomy.mlps.items()}}
        places["heads"] = {layer: attention.out for layer, attention in dense.anatomy.attentions.items()}
        left_out = {"mlp": "heads", "heads": "neurons", "both": ""}[self.units]
        found = {
            kind: {
                layer: _mean_gradient(dense, labels, module, self.steps) for layer, module in of_kind.items()
            }
            if kind != left_out
            else {}
            for kind, of_kind in places.items()
        }
        return Units(found["neurons"], found["heads"])


def _mean_gradient(dense: DensePass, labels: Tensor, module: nn.Module, steps: int) -> Tensor:
    """Return one layer's mean gradient over the scales, sequence by sequence. # [B, T', N]"""
    import torch

    at_once = max(1, TOKENS_AT_ONCE // dense.input_ids.shape[1])
    rows = []
    for ids, wanted in zip(dense.input_ids, labels, strict=True):
        total: Any = 0.0
        for scales in (torch.arange(steps) + 1).div(steps).split(at_once):
            total = total + _gradients_at(dense, ids, wanted, module, scales.to(ids.device)).sum(0)
        rows.append(total / steps)
    return torch.stack(rows)


def _gradients_at(dense: DensePass, ids: Tensor, labels: Tensor, module: nn.Module, scales: Tensor) -> Tensor:
    """Return one layer's gradients with its units scaled.

    Args:
        dense: The dense pass: model and prompt.
        ids: One sequence. # [T]
        labels: The tokens attributed. # [T']
        module: What the units enter.
        scales: # [S]

    Returns:
        # [S, T', N]
    """
    import torch

    leaves: list[Tensor] = []

    def scale(_module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        # From here on the pass has 1 + S rows; what the layers below left, the residual, serves all of them.
        leaves.append((args[0].detach() * scales[:, None, None].to(args[0].dtype)).requires_grad_())
        return (torch.cat([args[0].detach(), leaves[0]]), *args[1:])

    handle = module.register_forward_pre_hook(scale)
    try:
        with torch.enable_grad(), own_token_attention(dense.model, BESIDE_FIRST):
            hidden = dense.anatomy.decoder(input_ids=ids[None], use_cache=False).last_hidden_state
    finally:
        handle.remove()
    slope = torch.zeros_like(hidden)
    slope[1:] = dense.slope(hidden.detach()[1:], [_given(labels, dense.prompt)] * len(scales))
    (found,) = torch.autograd.grad(hidden, leaves, grad_outputs=slope)
    return found[:, dense.prompt :].float()


def _given(labels: Tensor, prompt: int) -> Labeller:
    return lambda _logits, part: labels[part.start - prompt : part.stop - prompt]
