"""The fallback step: transformers' own model and cache, its MLPs replaced for the time of a step."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from backend.decoding.parts import Parts

if TYPE_CHECKING:
    from torch import Tensor

    from backend.sparsity.engine import MaskedEngine

Applied = Callable[[], AbstractContextManager[Any]]


class HubStep:
    """Decodes one sequence token by token, with transformers' forward.

    Args:
        engine: The model.
        applied: Makes the context in which a step runs: the MLPs gathered, or masked, or as they are.
        clock: Seconds that the MLPs have taken so far; None if they are not timed.
    """

    name = "transformers"

    def __init__(self, engine: MaskedEngine, applied: Applied, clock: Callable[[], float] | None) -> None:
        self.parts = Parts(0, 0, 0, 0)
        self._engine, self._applied, self._clock = engine, applied, clock
        self._cache: Any = None

    def take(self, cache: Any, tokens: int) -> None:
        """Go on from a prompt, on a copy of its cache; arguments as for :meth:`LeanStep.take`."""
        self._cache = copy.deepcopy(cache)

    def __call__(self, token: int) -> Tensor:
        """Feed one token; return the logits of the next. # [V]"""
        import torch

        begun = time.perf_counter()
        before = self._clock() if self._clock else 0.0
        ids = torch.tensor([[token]], device=self._engine.model.device)
        with torch.inference_mode(), self._applied():
            output = self._engine.anatomy.decoder(input_ids=ids, past_key_values=self._cache, use_cache=True)
        middle = time.perf_counter()
        with torch.inference_mode():
            logits = self._engine.anatomy.head.logits(output.last_hidden_state[0, -1:])[0]
        end = time.perf_counter()
        mlp = self._clock() - before if self._clock else 0.0
        self.parts = Parts(mlp, middle - begun - mlp, end - middle, end - begun)
        return logits
