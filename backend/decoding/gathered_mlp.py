"""One layer's gated MLP for one token, reading only the weights that a policy chose. CPU kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from backend.decoding.kernels.gated_mlp import (
    GELU,
    GELU_TANH,
    SILU,
    activate,
    activated_rows,
    neurons_by_columns,
    neurons_by_rows,
    scatter,
    scatter_product,
)
from backend.decoding.kernels.linear import Floats, Indices, chosen_columns, chosen_rows, rows
from backend.decoding.kernels.selection import top_k
from backend.decoding.matrices import MLPMatrices
from backend.sparsity.policy import Activations, Context, Policy, Ranking

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import GatedMLP


def activation_kind(mlp: GatedMLP) -> int | None:
    """Return which of the kernels' activations an MLP has, None if none of them."""
    return kind_of(mlp.activation)


def kind_of(activation: Callable[[Tensor], Tensor]) -> int | None:
    """Return which of the kernels' activations a function is, None if none of them.

    It is told by what it computes, not by its name.
    """
    import torch
    from torch.nn import functional

    known: dict[int, Callable[[Tensor], Tensor]] = {
        SILU: functional.silu,
        GELU: functional.gelu,
        GELU_TANH: lambda x: functional.gelu(x, approximate="tanh"),
    }
    x = torch.linspace(-6, 6, 1001)
    with torch.inference_mode():
        values = activation(x)
    return next((kind for kind, f in known.items() if torch.allclose(values, f(x), atol=1e-6)), None)


class GatheredMLP:
    """One layer's MLP under a policy: call it with one token's input.

    Args:
        mlp: The MLP.
        matrices: Its weights, in the layout that the policy wants.
        policy: What is kept.
        context: The layer's context, state included.
        kind: The activation, one of the kernels'.
    """

    def __init__(
        self, mlp: GatedMLP, matrices: MLPMatrices, policy: Policy, context: Context, kind: int
    ) -> None:
        n, d = mlp.neurons, mlp.hidden_size
        self._threads = numba.get_num_threads()
        self._policy, self._context, self._kind, self._matrices = policy, context, kind, matrices
        sites = policy.used_sites()
        self._asks_in, self._asks_mid = "mlp_in" in sites, "mlp_mid" in sites
        self._in = policy.as_ranking("mlp_in", context) if self._asks_in else None
        self._mid = policy.as_ranking("mlp_mid", context) if self._asks_mid else None
        fixed = policy.fixed_neurons(context) if self._asks_mid else None
        self._fixed = None if fixed is None else np.flatnonzero(fixed.numpy())
        self._all_inputs: Indices = np.arange(d, dtype=np.int64)
        self._all_neurons: Indices = np.arange(n, dtype=np.int64)
        self._gated, self._ups, self._neurons, self._part = (np.zeros(n, np.float32) for _ in range(4))
        self._ranked = {"gate": self._gated, "up": self._ups, "neurons": self._neurons}
        self._out = np.empty(d, np.float32)
        self._masked = np.empty(d, np.float32)
        self._chosen_in, self._chosen_mid = np.empty(d, np.int64), np.empty(n, np.int64)
        self._histogram = np.zeros(2048, np.int32)
        self.kept_in, self.kept_mid = d, n
        """Entries that the last token kept at each site."""

    def __call__(self, x: Floats) -> Floats:
        """Return ``W_d (m_mid ⊙ act(W_g (m_in ⊙ x)) ⊙ W_u (m_in ⊙ x))``; the array is overwritten next time.

        Args:
            x: The MLP's input. # [d]

        Returns:
            # [d]
        """
        inputs = self._choose_inputs(x)
        neurons, chosen = self._compute_neurons(x, inputs)
        down = self._matrices.down
        chosen_columns(down.values, down.scales, neurons, chosen, self._out, self._threads)
        self.kept_in, self.kept_mid = len(inputs), len(chosen)
        return self._out

    def _choose_inputs(self, x: Floats) -> Indices:
        if self._in is not None:
            return self._top_k(self._in, x, self._chosen_in)
        if not self._asks_in:
            return self._all_inputs
        mask = self._policy.mlp_in(_tensor(x), self._context)
        return self._all_inputs if mask is None else np.flatnonzero(mask.numpy())

    def _compute_neurons(self, x: Floats, inputs: Indices) -> tuple[Floats, Indices]:
        """Return the neurons' activations and which of them are kept; the others' values mean nothing."""
        needs = self._policy.needs
        whole = not self._asks_mid or needs >= {"gate", "up"}
        gate, up, kind = self._matrices.gate, self._matrices.up, self._kind
        if whole and self._matrices.input_major:
            neurons_by_columns(
                gate.values, gate.scales, up.values, up.offset, up.scales, x, inputs, kind,
                self._gated, self._ups, self._neurons, self._threads,
            )  # fmt: skip
            return self._neurons, self._choose_neurons(x)
        x = self._only(x, inputs)
        if whole:
            neurons_by_rows(
                gate.values, gate.scales, up.values, up.scales, x, kind,
                self._gated, self._ups, self._neurons, self._threads,
            )  # fmt: skip
            return self._neurons, self._choose_neurons(x)
        if "gate" in needs:
            activated_rows(gate.values, gate.scales, x, kind, self._gated, self._threads)
            chosen = self._choose_neurons(x)
            part = self._part[: len(chosen)]
            chosen_rows(up.values, up.scales, x, chosen, part, self._threads)
            scatter_product(self._gated, part, chosen, self._neurons)
            return self._neurons, chosen
        if "up" in needs:
            rows(up.values, up.scales, x, self._ups, self._threads)
        chosen = self._choose_neurons(x)
        part = self._part[: len(chosen)]
        chosen_rows(gate.values, gate.scales, x, chosen, part, self._threads)
        activate(part, kind)
        if "up" in needs:
            scatter_product(self._ups, part, chosen, self._neurons)
        else:
            other = self._gated[: len(chosen)]
            chosen_rows(up.values, up.scales, x, chosen, other, self._threads)
            scatter(part, other, chosen, self._neurons)
        return self._neurons, chosen

    def _choose_neurons(self, x: Floats) -> Indices:
        if not self._asks_mid:
            return self._all_neurons
        if self._fixed is not None:
            return self._fixed
        if self._mid is not None:
            return self._top_k(self._mid, self._ranked[self._mid.of], self._chosen_mid)
        needs = self._policy.needs
        activations = Activations(
            x=_tensor(x),
            gate=_tensor(self._gated) if "gate" in needs else None,
            up=_tensor(self._ups) if "up" in needs else None,
            neurons=_tensor(self._neurons) if needs >= {"gate", "up"} else None,
        )
        mask = self._policy.mlp_mid(activations, self._context)
        return self._all_neurons if mask is None else np.flatnonzero(mask.numpy())

    def _top_k(self, ranking: Ranking, values: Floats, chosen: Indices) -> Indices:
        if ranking.k >= len(values):
            return self._all_inputs if ranking.of == "x" else self._all_neurons
        if ranking.weights is not None:
            values = values * ranking.weights.numpy()
        top_k(values, ranking.k, chosen, self._histogram)
        return chosen[: ranking.k]

    def _only(self, x: Floats, inputs: Indices) -> Floats:
        if len(inputs) == len(x):
            return x
        self._masked[:] = 0
        self._masked[inputs] = x[inputs]
        return self._masked


def _tensor(values: Floats) -> Tensor:
    """Return a token's values as the policies see them, sharing memory. # [N] → [1, 1, N]"""
    import torch

    found: Any = torch.from_numpy(values)
    tensor: Tensor = found[None, None]
    return tensor
