"""What is measured on calibration text before a policy runs: how sensitive the loss is to each layer."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from backend.routing.anatomy import MoEAnatomy


def layer_sensitivities(anatomy: MoEAnatomy, batches: Iterable[Tensor]) -> dict[int, float]:
    """Return F_l, the mean squared gradient of the loss at the routed experts' output, relative to its mean.

    Source: Zhong et al. (AdapMoE), arXiv 2408.10284: the diagonal Fisher information stands for the Hessian.

    Args:
        anatomy: The model, with its original routing.
        batches: Token ids of calibration sequences. # each [1, T]

    Returns:
        Layer → F_l, 1 on average over the layers.
    """
    import torch

    sums = dict.fromkeys(anatomy.layers, 0.0)
    with torch.enable_grad():
        for ids in batches:
            outputs: dict[int, Tensor] = {}
            with ExitStack() as stack:
                for index, layer in anatomy.layers.items():
                    handle = layer.experts.register_forward_hook(_keep(outputs, index))
                    stack.callback(handle.remove)
                embedded = anatomy.model.get_input_embeddings()(ids).detach().requires_grad_(True)
                hidden = anatomy.decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state
            logits = anatomy.head.logits(hidden[0, :-1])
            loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
            gradients = torch.autograd.grad(loss, [outputs[index] for index in anatomy.layers])
            for index, gradient in zip(anatomy.layers, gradients, strict=True):
                sums[index] += float(gradient.double().square().mean())
    mean = sum(sums.values()) / len(sums)
    return {index: value / mean for index, value in sums.items()}


def _keep(outputs: dict[int, Tensor], index: int) -> Any:
    def hook(_module: Any, _arguments: Any, output: Tensor) -> None:
        outputs[index] = output

    return hook
