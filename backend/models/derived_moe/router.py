"""The routers' start: a ridge regression from an MLP's input to how loud each expert will be.

The target is the square root of an expert's energy share: on this model it chose better experts than the
energy itself, its logarithm, or a logistic regression on the oracle's choice. What no linear router can know
is left to the distillation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backend.models.derived_moe.clustering import energies, expert_energies
from backend.models.derived_moe.settings import MoEShape

if TYPE_CHECKING:
    from torch import Tensor

_RIDGE = 1e-3  # of the mean squared input


def regress_router(
    mlp: Any, order: Tensor, inputs: Tensor, shape: MoEShape, spread: float
) -> dict[str, Tensor]:
    """Return one layer's router and scale, fitted on recorded inputs.

    The router is rescaled so that its logits spread by ``spread`` over a token's experts: a wide spread makes
    informative weights, a narrow one leaves the experts' outputs as they are. Each expert's scale is the one
    that brings ``s_e w_e`` closest to 1, as in the dense model, where it is chosen (least squares, by its
    energy).

    Args:
        mlp: The dense MLP.
        order: Its neurons' order. # [n]
        inputs: Recorded inputs. # [T, d]
        shape: Sizes.
        spread: Standard deviation of a token's logits.

    Returns:
        ``router`` # [N, d] and ``scale`` # [N]
    """
    import torch

    with torch.no_grad():
        gated = (mlp.act_fn(mlp.gate_proj(inputs)) * mlp.up_proj(inputs))[:, order]  # [T, n]
        norms = mlp.down_proj.weight[:, order].norm(dim=0)
        loudness = expert_energies(energies(gated, norms), shape).sqrt()  # [T, N]
        router = _ridge(inputs, loudness).T
        logits = inputs @ router.T
        router *= spread / logits.std(dim=1).mean()
        weights = (inputs @ router.T).softmax(dim=1)
        chosen = torch.zeros_like(weights).scatter_(1, weights.topk(shape.top_k, dim=1).indices, 1.0)
        carried = chosen * loudness.square()
        scale = (carried * weights).sum(dim=0) / (carried * weights.square()).sum(dim=0).clamp_min(1e-20)
        scale = scale.where(carried.sum(dim=0) > 0, scale.new_tensor(float(shape.experts)))
    return {"router": router.contiguous(), "scale": scale}


def _ridge(inputs: Tensor, targets: Tensor) -> Tensor:
    """Return B that minimises ``‖X B − Y‖² + λ‖B‖²``. # [T, d], [T, N] → [d, N]"""
    import torch

    gram = inputs.T @ inputs
    gram += torch.eye(gram.shape[0]) * (_RIDGE * gram.diagonal().mean())
    solution: Tensor = torch.linalg.solve(gram, inputs.T @ targets)
    return solution
