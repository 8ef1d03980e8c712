"""The hook on a model's routers: hands what they said to a function, and the model what that returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from backend.routing.routes import Routes, rank

if TYPE_CHECKING:
    from backend.routing.anatomy import MoELayer

Chooser: TypeAlias = "Callable[[MoELayer, Routes], NDArray[np.int32]]"
"""Given a layer and what its router said, returns the experts by rank, ``NONE`` behind them. # [T, K]"""


@contextmanager
def hooked(layers: dict[int, MoELayer], answer: Callable[..., Any]) -> Iterator[dict[int, int]]:
    """Let a function answer for every router for the time of a ``with`` block.

    Args:
        layers: The mixtures.
        answer: Called with the layer, the router's arguments, logits, weights and experts; returns the
            three that the model shall see.

    Yields:
        How often each layer's router fired, growing.
    """
    fired = dict.fromkeys(layers, 0)

    def hook(layer: MoELayer) -> Any:
        def answered(_module: Any, arguments: tuple[Any, ...], output: Any) -> Any:
            fired[layer.layer] += 1
            return answer(layer, arguments, *output)

        return answered

    handles = [layer.router.register_forward_hook(hook(layer)) for layer in layers.values()]
    try:
        yield fired
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def rerouted(layers: dict[int, MoELayer], choose: Chooser) -> Iterator[dict[int, int]]:
    """Route the model's tokens by ``choose`` for the time of a ``with`` block; afterwards it is as before.

    What is chosen is ranked alone by ``choose``; its weights come from the router's original logits, by the
    formula of the model (renormalised only if the model does). Slots without an expert weigh nothing.

    Args:
        layers: The mixtures, from :func:`backend.routing.anatomy.find_moe`.
        choose: Chooses each token's experts.

    Yields:
        How often each layer's router fired, growing.
    """
    import torch

    def answer(layer: MoELayer, arguments: Any, logits: Any, weights: Any, own: Any) -> Any:
        routes = routes_of(layer, arguments, logits, own)
        found = choose(layer, routes)
        used = max(1, int((found >= 0).sum(axis=1).max(initial=1)))
        chosen = torch.from_numpy(np.ascontiguousarray(found[:, :used], np.int64)).to(logits.device)
        kept = chosen >= 0
        whole = bool(kept.all())
        # An empty slot names the token's first expert, which runs anyhow, with weight 0.
        experts = chosen if whole else torch.where(kept, chosen, chosen[:, :1].clamp(min=0))
        new = layer.weighting.weights(logits, experts, None if whole else kept).to(weights.dtype)
        return logits, new, experts.to(own.dtype)

    with hooked(layers, answer) as fired:
        yield fired


def routes_of(layer: MoELayer, arguments: tuple[Any, ...], logits: Any, own: Any) -> Routes:
    """Return what a router said as policies see it.

    Args:
        layer: The mixture.
        arguments: What its router was called with.
        logits: # [T, N]
        own: The model's own experts. # [T, K]
    """
    from backend.routing.weighting import selection_bias

    bias = selection_bias(layer.router, arguments, layer.size)
    scores = layer.selection.scores(logits.detach(), bias).cpu().numpy()
    likely = layer.weighting.scores(logits.detach()).float()
    likely = likely / likely.sum(-1, keepdim=True)
    return Routes(rank(scores, own.cpu().numpy()), scores, likely.cpu().numpy(), layer.k)
