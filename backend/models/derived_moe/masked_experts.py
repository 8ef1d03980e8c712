"""The experts of the derived mixture as one product over all of them, in which the routing is a factor.

Transformers' loop calls a dozen small operations for each of 128 experts of 6 neurons; computing all 768
neurons and multiplying those not chosen by 0 is the same sum and many times faster
(``python -m benchmarks.derived_moe``). It is for small experts: it computes N/K of the arithmetic, and says
nothing about the time of a mixture whose experts are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

INTERFACE = "sparsity_lens_masked"
"""The name under which transformers finds them."""


def use_masked_experts(model: Any) -> None:
    """Let all experts of a model that transformers built be computed so."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(INTERFACE, masked_experts)
    model.set_experts_implementation(INTERFACE)


@contextmanager
def transformers_experts(model: Any) -> Iterator[None]:
    """Compute the experts as transformers does within the block, where they are computed so."""
    masked = INTERFACE in model.get_experts_implementation().values()
    if masked:
        model.set_experts_implementation("eager")
    try:
        yield
    finally:
        if masked:
            model.set_experts_implementation(INTERFACE)


def masked_experts(experts: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Return ``Σ_k weights_k · E_k(x)`` over each token's chosen experts.

    Args:
        experts: A module with ``gate_up_proj`` [N, 2m, d], ``down_proj`` [N, d, m] and ``act_fn``.
        hidden: x. # [T, d]
        chosen: Experts of each token; N stands for none. # [T, K]
        weights: Their weights. # [T, K]

    Returns:
        # [T, d]
    """
    from torch.nn.functional import linear

    count = len(experts.down_proj)
    factors = weights.new_zeros(len(hidden), count + 1).scatter_add_(1, chosen, weights)[:, :count]
    gate, up = linear(hidden, experts.gate_up_proj.flatten(0, 1)).unflatten(1, (count, -1)).chunk(2, dim=-1)
    gated = experts.act_fn(gate) * up * factors[..., None].to(hidden.dtype)  # [T, N, m]
    down = experts.down_proj.permute(1, 0, 2).flatten(1)  # [d, N·m]
    return linear(gated.flatten(1), down)
