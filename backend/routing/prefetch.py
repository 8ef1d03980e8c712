"""Prefetch: which experts the next mixture layer will use, guessed one layer early by its own router.

The router of layer l+1 is run on the input of layer l's router. The residual stream changes little from one
layer to the next, so much of the guess is right, and its experts can be loaded while layer l computes.
Routing is not touched: the output is the same. (The guess of Eliseev & Mazur, arXiv 2312.17238.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from backend.routing.anatomy import MoELayer

Told = Callable[[int, NDArray[np.int64]], None]
"""Called with a layer and the experts guessed for it. # [T, K]"""


@contextmanager
def guessing(
    layers: dict[int, MoELayer], told: Told, *, ahead: int = 1, required: bool = True
) -> Iterator[None]:
    """Guess the experts of each layer early, for the time of a ``with`` block.

    Args:
        layers: The mixtures, in the model's order.
        told: Told of each guess, as soon as the input of the earlier router is known.
        ahead: How many mixture layers earlier; 0 is the control: a layer's own router on its own input.
        required: Refuse a model whose routers cannot be asked; otherwise nothing is told of it.

    Raises:
        UserError: A router takes more than hidden states, so it cannot be asked about another layer's.
    """
    order = list(layers.values())
    pairs = [(layer, layer) for layer in order] if ahead == 0 else _ahead(order, ahead)

    def hook(later: MoELayer) -> Any:
        def guess(_module: Any, arguments: tuple[Any, ...]) -> None:
            if len(arguments) == 1:
                told(later.layer, experts_for(later, arguments[0]))
            elif required:
                raise UserError(
                    f"The routers of this model take more than hidden states, so layer {later.layer} cannot "
                    "be guessed from an earlier one."
                )

        return guess

    handles = [now.router.register_forward_pre_hook(hook(later)) for now, later in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def experts_for(layer: MoELayer, hidden: Tensor) -> NDArray[np.int64]:
    """Return what a layer's router would choose on an input, seen by no hook. # [T, d] → [T, K]"""
    found: NDArray[np.int64] = layer.router.forward(hidden)[2].cpu().numpy().astype(np.int64)
    return found


@dataclass
class GuessReading:
    """How good guesses were, by layer, growing.

    Attributes:
        used: Experts that tokens used.
        right: Of them, those that had been guessed.
        guessed: Experts guessed.
        tokens: Tokens of the layer.
    """

    used: dict[int, int] = field(default_factory=dict)
    right: dict[int, int] = field(default_factory=dict)
    guessed: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)

    def add(self, layer: int, guessed: NDArray[np.int64], used: NDArray[np.int64]) -> None:
        """Compare a layer's guesses with what was used; −1 is no expert. # [T, K'] and [T, K]"""
        right = int(((used[:, :, None] == guessed[:, None, :]) & (used[:, :, None] >= 0)).sum())
        for counts, more in (
            (self.used, int((used >= 0).sum())),
            (self.right, right),
            (self.guessed, int((guessed >= 0).sum())),
            (self.tokens, len(used)),
        ):
            counts[layer] = counts.get(layer, 0) + more

    def recall(self, layer: int | None = None) -> float:
        """Return recall@K: the share of the experts used that had been guessed, of a layer or of all."""
        layers = self.used if layer is None else [layer]
        return sum(self.right[at] for at in layers) / max(1, sum(self.used[at] for at in layers))

    @property
    def wasted_per_token(self) -> float:
        """Experts guessed and not used, a token, all layers together: loads for nothing, at most."""
        spare = {at: self.guessed[at] - self.right[at] for at in self.guessed}
        return sum(count / max(1, self.tokens[at]) for at, count in spare.items())


def read_guesses(layers: dict[int, MoELayer], run: Callable[[], Any], *, ahead: int = 1) -> GuessReading:
    """Run a model with its own routing and compare guesses with the experts that its routers chose.

    Args:
        layers: The mixtures.
        run: Runs the model, in one or several calls.
        ahead: See :func:`guessing`.
    """
    from backend.routing.hooks import hooked

    reading, waiting = GuessReading(), dict[int, NDArray[np.int64]]()

    def answer(layer: MoELayer, _arguments: Any, logits: Any, weights: Any, own: Any) -> Any:
        if layer.layer in waiting:
            reading.add(layer.layer, waiting.pop(layer.layer), own.cpu().numpy().astype(np.int64))
        return logits, weights, own

    with hooked(layers, answer), guessing(layers, waiting.__setitem__, ahead=ahead):
        run()
    return reading


def _ahead(order: list[MoELayer], ahead: int) -> list[tuple[MoELayer, MoELayer]]:
    return list(pairwise(order)) if ahead == 1 else list(zip(order, order[ahead:], strict=False))
