"""A linear weight as the kernels see it: NumPy arrays over the model's own memory, or int8 with scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backend.decoding.kernels.linear import Floats, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import GatedMLP

EMPTY: Floats = np.empty(0, np.float32)


@dataclass(frozen=True)
class Matrix:
    """One linear weight ``W ≈ diag(scales)·values``.

    Attributes:
        values: Row-major # [n, d] or input-major # [d, ≥ n], as the layout says.
        scales: One a row of W. # [n]
        offset: Where its outputs begin in an input-major array that it shares with another.
    """

    values: Weights
    scales: Floats
    offset: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return int(self.values.nbytes + self.scales.nbytes)


def matrix(weight: Tensor, *, input_major: bool, int8: bool = False) -> Matrix:
    """Return a weight for the kernels; float32 shares the model's memory, int8 is a copy a quarter its size.

    Args:
        weight: # [n, d] float32 on the CPU, laid out as ``input_major`` says.
        input_major: Which array the kernels want.
        int8: Hold it in 8 bits; the weight must have been rounded to them
            (:func:`backend.models.quantization.round_to_int8`), so that nothing is lost.
    """
    weight = weight.detach()
    if int8:
        from backend.models.quantization import quantise_rows

        values, scales = quantise_rows(weight)
        turned = values.t() if input_major else values
        return Matrix(turned.contiguous().numpy(), scales.numpy())
    array = (weight.t() if input_major else weight).numpy()
    assert array.flags.c_contiguous, "the weight is laid out the other way round"
    return Matrix(array, np.ones(weight.shape[0], np.float32))


def bias(module: object) -> Floats:
    """Return a linear module's bias, empty if it has none. # [n] or [0]"""
    found = getattr(module, "bias", None)
    return EMPTY if found is None else np.ascontiguousarray(found.detach().float().numpy())


@dataclass(frozen=True)
class MLPMatrices:
    """One MLP's three weights, gate and up in the same layout, down input-major."""

    gate: Matrix
    up: Matrix
    down: Matrix
    input_major: bool

    @classmethod
    def of(cls, mlp: GatedMLP, *, input_major: bool, int8: bool = False) -> MLPMatrices:
        """Return the weights of an MLP whose memory is laid out that way."""
        down = matrix(mlp.down_weight, input_major=True, int8=int8)
        if mlp.fused and input_major and not int8:
            # One array [d, 2n] holds both, gate first; a slice of it would not be contiguous.
            shared = mlp.module.gate_up_proj.weight.detach().t().numpy()
            ones = np.ones(mlp.neurons, np.float32)
            return cls(Matrix(shared, ones), Matrix(shared, ones, mlp.neurons), down, input_major)
        gate = matrix(mlp.gate_weight, input_major=input_major, int8=int8)
        return cls(gate, matrix(mlp.up_weight, input_major=input_major, int8=int8), down, input_major)
