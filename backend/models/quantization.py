"""Rounding weights to int8: symmetric, one scale per output row, ``W ≈ diag(s)·Q`` with |Q| ≤ 127.

A scale per output factors out of every sum over inputs, so a column that is skipped needs no other scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def quantise_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest int8 weight and its scales; a rounded weight gives itself back.

    Args:
        weight: # [n, d] float32

    Returns:
        Q # [n, d] int8, s # [n] float32
    """
    import torch

    scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scales[:, None]).round().to(torch.int8), scales


def round_to_int8(model: Any) -> None:
    """Round every linear weight of a model in place to what int8 can hold, the (tied) head included.

    Activations, norms, biases and an untied embedding stay float32. The arithmetic of the rounded model is
    that of kernels which read int8 weights, so its perplexity is theirs.

    Args:
        model: A Hugging Face causal language model in float32.
    """
    import torch

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                values, scales = quantise_rows(module.weight)
                # A new tensor: the old one may be the file itself, mapped into memory.
                module.weight.data = values.float() * scales[:, None]
