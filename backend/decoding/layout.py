"""How the MLPs' weights lie in memory: each held once, the way round that a policy's skips want it.

A weight's module keeps its shape ``[out, in]`` in either layout, so the model goes on working for prefill
and masked runs; only the order in memory changes. *Row-major* is PyTorch's own: a skipped row is a skipped
run of memory. *Input-major* stores the transpose: a skipped column is. The down projection is input-major
for every policy, since neurons are its columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from torch import nn

    from backend.models.anatomy import Anatomy, GatedMLP

Layout = Literal["row-major", "input-major"]


def layout_for(policy: Policy) -> Layout:
    """Return how gate and up should lie for a policy: input-major if it skips columns and computes all rows.

    One that skips rows too reads rows: what it saves of their columns it cannot skip in memory.
    """
    sites = policy.used_sites()
    all_rows = "mlp_mid" not in sites or policy.needs >= {"gate", "up"}
    return "input-major" if "mlp_in" in sites and all_rows else "row-major"


@contextmanager
def laid_out(anatomy: Anatomy, layout: Layout) -> Iterator[None]:
    """Lay the MLPs' weights out for decoding; afterwards they lie as before.

    It takes as much memory as the largest weight, for a moment, and about a tenth of a second for 100 MB.

    Args:
        anatomy: The model's parts.
        layout: How gate and up shall lie; down is input-major in both.
    """
    import torch

    weights: list[nn.Parameter] = []
    try:
        for mlp in anatomy.mlps.values():
            turned = [mlp.module.down_proj, *(_gate_and_up(mlp) if layout == "input-major" else [])]
            for module in turned:
                with torch.inference_mode(False):  # a weight made within it could have no gradient behind it
                    module.weight.data = module.weight.data.t().contiguous().t()
                weights.append(module.weight)
        yield
    finally:
        for weight in weights:
            with torch.inference_mode(False):
                weight.data = weight.data.contiguous()


def _gate_and_up(mlp: GatedMLP) -> list[nn.Module]:
    module = mlp.module
    return [module.gate_up_proj] if mlp.fused else [module.gate_proj, module.up_proj]
