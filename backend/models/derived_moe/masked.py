"""The MoE as masked dense arithmetic: every neuron is computed, the routing is a factor on them.

On a CPU this is several times faster than a loop over 64 small experts, and the gradient of an expert that
was not chosen is there for free. :mod:`backend.models.derived_moe.assembly` builds the same function as a
stock ``Qwen2MoeForCausalLM``; a test holds the two together.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from backend.models.derived_moe.settings import MoEShape

if TYPE_CHECKING:
    from torch import Tensor

PROJECTIONS = ("gate", "up", "down")


class MaskedMoE(nn.Module):
    """One MLP, its n neurons in the order shared, expert 0, expert 1, …

    ``y = W_d,s h_s + Σ_e s_e w_e m_e W_d,e h_e`` with ``h = act(W_g x) ⊙ (W_u x)``, ``w = softmax(R x)`` over
    all N experts, ``m`` the K largest, and s each expert's scale (N makes a uniform router over all experts
    the dense MLP). Each W is the dense model's, its rows permuted, plus a trained correction B A of rank r.

    Args:
        mlp: The dense model's MLP (gate_proj, up_proj, down_proj, act_fn).
        order: The neurons' order. # [n]
        shape: Sizes.
        rank: r; 0 for no corrections.
        boundary: Width of the sigmoid through which the choice of the K gets a gradient.
        all_on: Choose all N experts: for the identity with the dense model.
    """

    def __init__(
        self, mlp: Any, order: Tensor, shape: MoEShape, rank: int, boundary: float = 1.0, all_on: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.boundary, self.all_on = shape, boundary, all_on
        self.act = mlp.act_fn
        neurons, hidden = mlp.gate_proj.weight.shape
        self.gate = nn.Parameter(mlp.gate_proj.weight[order].clone(), requires_grad=False)  # [n, d]
        self.up = nn.Parameter(mlp.up_proj.weight[order].clone(), requires_grad=False)  # [n, d]
        self.down = nn.Parameter(mlp.down_proj.weight[:, order].clone(), requires_grad=False)  # [d, n]
        self.router = nn.Parameter(torch.zeros(shape.experts, hidden))  # R
        self.scale = nn.Parameter(torch.full((shape.experts,), float(shape.experts)))
        sizes = {"gate": (neurons, hidden), "up": (neurons, hidden), "down": (hidden, neurons)}
        self.lora = nn.ParameterDict()
        for name in PROJECTIONS if rank else ():
            rows, columns = sizes[name]
            self.lora[f"{name}_a"] = nn.Parameter(torch.randn(rank, columns) * columns**-0.5)
            self.lora[f"{name}_b"] = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Return the MLP's output. # [..., d] → [..., d]"""
        shared = self.shape.shared
        gated = self.act(self._project("gate", x)) * self._project("up", x)  # [..., n]
        factors = self.factors(x).to(gated.dtype)  # [..., N]
        routed = gated[..., shared:].unflatten(-1, (self.shape.experts, -1)) * factors[..., None]
        return self._down(gated[..., :shared], slice(None, shared)) + self._down(
            routed.flatten(-2), slice(shared, None)
        )

    def factors(self, x: Tensor) -> Tensor:
        """Return ``s_e w_e m_e``, in float32. # [..., d] → [..., N]

        The choice m has no gradient; a sigmoid around the K-th logit stands in for it in the backward pass
        (straight-through), so an expert that would have helped is drawn in.
        """
        with torch.autocast(x.device.type, enabled=False):
            logits = functional.linear(x.float(), self.router)
            weights = logits.softmax(dim=-1)
            if self.all_on:
                return self.scale * weights
            best = logits.topk(self.shape.top_k + 1, dim=-1)
            kept = best.indices[..., : self.shape.top_k]
            mask = torch.zeros_like(logits).scatter_(-1, kept, 1.0)
            if self.training:
                border = best.values[..., -2:].mean(dim=-1, keepdim=True).detach()
                soft = torch.sigmoid((logits - border) / self.boundary)
                mask = mask + soft - soft.detach()
            return self.scale * weights * mask

    def _project(self, name: str, x: Tensor) -> Tensor:
        out = functional.linear(x, getattr(self, name))
        if not self.lora:
            return out
        return out + functional.linear(functional.linear(x, self.lora[f"{name}_a"]), self.lora[f"{name}_b"])

    def _down(self, gated: Tensor, neurons: slice) -> Tensor:
        out = functional.linear(gated, self.down[:, neurons])
        if not self.lora:
            return out
        inner = functional.linear(gated, self.lora["down_a"][:, neurons])
        return out + functional.linear(inner, self.lora["down_b"])


def masked_model(
    dense: Any, orders: Tensor, shape: MoEShape, rank: int, boundary: float = 1.0, all_on: bool = False
) -> Any:
    """Return a copy of the dense model whose MLPs are :class:`MaskedMoE`, ready to be trained.

    What is trained: routers, scales, corrections, the two norms' gains of every layer, and biases of q, k and
    v (zero at the start), all of which the stock Qwen2-MoE has a place for.

    Args:
        dense: A Llama for causal language modelling, without biases.
        orders: Neuron orders. # [L, n]
        shape: Sizes.
        rank: Rank of the corrections; 0 for none.
        boundary: See :class:`MaskedMoE`.
        all_on: See :class:`MaskedMoE`.
    """
    model = copy.deepcopy(dense).requires_grad_(False)
    for layer, order in zip(model.model.layers, orders, strict=True):
        layer.mlp = MaskedMoE(layer.mlp, order.long(), shape, rank, boundary, all_on)
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.weight.requires_grad_(True)
        for name in ("q_proj", "k_proj", "v_proj"):
            linear = getattr(layer.self_attn, name)
            linear.bias = nn.Parameter(linear.weight.new_zeros(linear.out_features))
    return model


def trained_tensors(model: Any) -> dict[str, Tensor]:
    """Return what training can change, stacked over layers: name → [L, …].

    The names are those of the artefact's tensors, see :mod:`backend.models.derived_moe.artefacts`.
    """
    layers = [_layer_parameters(layer) for layer in model.model.layers]
    return {name: torch.stack([layer[name].detach().float() for layer in layers]) for name in layers[0]}


def set_trained(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors of :func:`trained_tensors` into a masked model; names that it lacks are an error."""
    with torch.no_grad():
        for index, layer in enumerate(model.model.layers):
            parameters = _layer_parameters(layer)
            for name, tensor in tensors.items():
                parameters[name].copy_(tensor[index])


def _layer_parameters(layer: Any) -> dict[str, Tensor]:
    attention, moe = layer.self_attn, layer.mlp
    return {
        "router": moe.router,
        "scale": moe.scale,
        **{f"lora.{name}": parameter for name, parameter in moe.lora.items()},
        "norm.attention": layer.input_layernorm.weight,
        "norm.mlp": layer.post_attention_layernorm.weight,
        **{f"bias.{name}": getattr(attention, f"{name}_proj").bias for name in "qkv"},
    }
