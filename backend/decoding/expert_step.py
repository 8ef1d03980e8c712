"""One token through its routed experts, wherever their weights lie: by a compiled kernel, or by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from backend.decoding.expert_layers import ExpertLayer
from backend.decoding.expert_weights import SlotWeights
from backend.decoding.gathered_mlp import kind_of
from backend.decoding.kernels.linear import Indices

if TYPE_CHECKING:
    from torch import Tensor


class ExpertStep(Protocol):
    """Computes one token of one layer."""

    def __call__(self, x: Tensor, slots: Indices, weights: Tensor) -> Tensor:
        """Return ``Σ_r w_r E_r(x)``; the tensor may be overwritten by the next call.

        Args:
            x: The layer's input. # [d]
            slots: Where its experts lie. # [K]
            weights: Their router weights, in the same order. # [K]
        """
        ...


def expert_step(layer: ExpertLayer, held: SlotWeights) -> ExpertStep:
    """Return the fastest step for a layer: the kernel for plain gated fp32 experts, torch for all others."""
    import torch

    plain = (
        layer.dtype == torch.float32
        and layer.parts == ("gate_up_proj", "down_proj")
        and not layer.module.is_transposed
        and getattr(layer.module, "is_concatenated", True)
        and _halves(layer.module)
        and not getattr(layer.module, "has_post_expert_norm", False)
    )
    kind = kind_of(layer.module.act_fn) if plain else None
    return TorchExpertStep(layer, held) if kind is None else KernelExpertStep(layer, held, kind)


class KernelExpertStep:
    """The compiled kernel's step: weights are read where they lie, nothing is gathered.

    Args:
        layer: The layer.
        held: Where its experts' weights lie.
        kind: The activation, one of the kernels'.
    """

    def __init__(self, layer: ExpertLayer, held: SlotWeights, kind: int) -> None:
        import numba

        self._kind, self._threads = kind, numba.get_num_threads()
        self._gate_up, self._down = (held.rows[part].numpy() for part in layer.parts)
        self._starts = tuple(held.starts[part] for part in layer.parts)
        self._d, self._n = layer.shapes["down_proj"]
        self._ones = np.ones(2 * self._n, np.float32)
        self._hidden = np.empty((1, 2 * self._n), np.float32)
        self._out = np.empty(self._d, np.float32)

    def __call__(self, x: Tensor, slots: Indices, weights: Tensor) -> Tensor:
        """See :class:`ExpertStep`."""
        import torch

        from backend.decoding.kernels.experts import routed_experts

        if len(slots) > len(self._hidden):
            self._hidden = np.empty((len(slots), 2 * self._n), np.float32)
        routed_experts(
            self._gate_up, self._starts[0], self._down, self._starts[1], slots,
            weights.float().numpy(), x.contiguous().numpy(), self._n, self._kind, self._ones, self._hidden,
            self._out, self._threads,
        )  # fmt: skip
        return torch.from_numpy(self._out)


class TorchExpertStep:
    """Any experts that transformers' interface knows: biases, transposed weights, own gates, half precision.

    Args:
        layer: The layer.
        held: Where its experts' weights lie.
    """

    def __init__(self, layer: ExpertLayer, held: SlotWeights) -> None:
        self._module, self._held = layer.module, held
        self._first = "gate_up_proj" if "gate_up_proj" in layer.parts else "up_proj"
        self._parts = frozenset(layer.parts)

    def __call__(self, x: Tensor, slots: Indices, weights: Tensor) -> Tensor:
        """See :class:`ExpertStep`."""
        import torch

        module = self._module
        out = torch.zeros_like(x)
        for slot, weight in zip(slots.tolist(), weights, strict=True):
            inner = self._linear(self._first, slot, x)
            inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)
            expert = self._linear("down_proj", slot, inner)
            if getattr(module, "has_post_expert_norm", False):
                expert = module.post_expert_norm(expert)
            out += (expert * weight).to(out.dtype)
        return out

    def _linear(self, part: str, slot: int, x: Tensor) -> Tensor:
        from torch.nn import functional

        weight = self._held.part(part, slot)
        bias = self._held.part(f"{part}_bias", slot) if f"{part}_bias" in self._parts else None
        return functional.linear(x, weight.T if self._module.is_transposed else weight, bias)


def _halves(module: Any) -> bool:
    """Tell whether the module's gate is ``act(first half) · second half``, by trying it."""
    import torch

    x = torch.linspace(-3, 3, 16)
    with torch.inference_mode():
        expected = module.act_fn(x[:8]) * x[8:] if hasattr(module, "act_fn") else None
        return expected is not None and torch.allclose(module._apply_gate(x), expected)
