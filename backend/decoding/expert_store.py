"""A store of experts: a model's routed experts lie in a file, C of a layer's N are in memory, misses load.

It stands in for the experts through transformers' ``ExpertsInterface``, so that attention, routers, shared
experts and everything else run as the model has them, and the time of a token under a cache limit is measured
rather than modelled (arXiv 2412.00099 times phones so). A token's experts are served as one batch, layer by
layer: none of them leaves while the token is served, and the misses are those of
:func:`backend.residency.simulate` over the same selections. Several tokens in one call (a prompt) are walked
one after the other. Slots whose router weight is 0 are not accesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from backend.decoding.direct_reader import DirectReader
from backend.decoding.expert_file import ExpertFile, verify
from backend.decoding.expert_layers import ExpertLayer, check_slots, experts_per_token
from backend.decoding.expert_step import ExpertStep, expert_step
from backend.decoding.expert_weights import SlotWeights
from backend.decoding.kernels.linear import Indices
from backend.decoding.prefetched import Prefetched
from backend.decoding.resident_experts import Counters, ResidentExperts, reserved
from backend.errors import UserError
from backend.residency import Eviction

if TYPE_CHECKING:
    from torch import Tensor

Scope = Literal["per-layer", "global"]
INTERFACE = "sparsity_lens_experts"
"""The name under which transformers finds our experts."""
_BUFFERS = 4
"""Buffers for experts read ahead, in experts that a token uses in a layer."""
_ATTRIBUTE = "sparsity_lens_experts_forward"


class RunningExperts:
    """Experts that stand in for a model's own while attached: ``with experts: model(...)``.

    Args:
        model: The Hugging Face model.
        layers: Its experts.
    """

    def __init__(self, model: Any, layers: Sequence[ExpertLayer]) -> None:
        self._model, self._layers = model, tuple(layers)
        self._before: dict[str, str | None] | None = None

    def __enter__(self) -> Self:
        """Attach to the model.

        Raises:
            UserError: It is attached already, or the model's experts cannot be replaced.
        """
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

        if any(hasattr(layer.module, _ATTRIBUTE) for layer in self._layers):
            raise UserError("The model's experts are served by another store already; leave that one first.")
        ALL_EXPERTS_FUNCTIONS.register(INTERFACE, _dispatch)
        self._before = self._model.get_experts_implementation()
        for layer in self._layers:
            setattr(layer.module, _ATTRIBUTE, partial(self._forward, layer))
        self._model.set_experts_implementation(INTERFACE)
        if any(layer.module.config._experts_implementation != INTERFACE for layer in self._layers):
            self.__exit__()
            raise UserError(
                f"transformers does not let the experts of {type(self._model).__name__} be replaced, so no "
                "store can stand in for them."
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Give the model its own experts back."""
        if self._before is not None:
            self._model.set_experts_implementation(self._before)
            self._before = None
        for layer in self._layers:
            if hasattr(layer.module, _ATTRIBUTE):
                delattr(layer.module, _ATTRIBUTE)

    def _forward(self, layer: ExpertLayer, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Compute one layer's experts, token after token. # [T, d], [T, K], [T, K] → [T, d]"""
        import torch

        out = torch.empty_like(hidden)
        experts = chosen.numpy()
        for t in range(len(hidden)):
            used = np.flatnonzero(weights[t].float().numpy())
            row = weights[t] if len(used) == len(weights[t]) else weights[t, used]
            out[t] = self._token(layer, hidden[t], experts[t, used].astype(np.int64), row)
        return out

    def _token(self, layer: ExpertLayer, x: Tensor, experts: Indices, weights: Tensor) -> Tensor:
        raise NotImplementedError


class AllResident(RunningExperts):
    """The same arithmetic with every expert in memory: what a store is held against."""

    def __init__(self, model: Any, layers: Sequence[ExpertLayer]) -> None:
        super().__init__(model, layers)
        self._steps = [expert_step(layer, SlotWeights.in_model(layer)) for layer in layers]

    def _token(self, layer: ExpertLayer, x: Tensor, experts: Indices, weights: Tensor) -> Tensor:
        return self._steps[layer.index](x, experts, weights)


class ExpertStore(RunningExperts):
    """The store: a file, slots, and what happened.

    Args:
        model: The model.
        layers: Its experts.
        file: Where they lie on disk.
        slots: C: slots of each layer; of all layers together for a global cache.
        scope: One cache a layer, or one that all layers share.
        eviction: Which idle expert gives way: lru, lfu or random.
        seed: Of the random rule; layer i has ``seed + i``.
        direct: Read past the operating system's page cache.
        readers: Reads under way at once.
        prefetch: Take guesses (:meth:`expect`): experts that a later layer may use are read while others
            compute.
        keep_trace: Keep each layer's selections in ``trace``.

    Attributes:
        bypass: How the page cache is passed by: "O_DIRECT", "F_NOCACHE", "posix_fadvise" or "none".
        trace: With ``keep_trace``, each layer's selections, token by token, r_1 first; with it off, empty.

    Raises:
        UserError: Fewer slots than a token uses, an eviction that needs the future, no memory for the slots,
            or a file that cannot be read.
    """

    def __init__(
        self,
        model: Any,
        layers: Sequence[ExpertLayer],
        file: ExpertFile,
        *,
        slots: int,
        scope: Scope = "per-layer",
        eviction: Eviction = "lru",
        seed: int = 0,
        direct: bool = True,
        readers: int = 1,
        prefetch: bool = False,
        keep_trace: bool = False,
    ) -> None:
        super().__init__(model, layers)
        check_slots(model, slots)
        needed = experts_per_token(model)
        self._keep_trace = keep_trace
        self._reader = DirectReader(file.path, direct=direct)
        self.bypass = self._reader.bypass
        verify(layers, file, self._reader)
        self._pool = ThreadPoolExecutor(readers) if readers > 1 else None
        self.trace: list[list[list[int]]] = [[] for _ in layers]
        most = max(records.stride for records in file.layers)
        buffers = _BUFFERS * (needed or 1) if prefetch else 0
        self._ahead = Prefetched(memoryview(reserved(buffers * most)), most, readers) if prefetch else None
        self._expected: dict[int, set[int]] = {}
        self._guesses = Counters()
        groups = [[records] for records in file.layers] if scope == "per-layer" else [list(file.layers)]
        self._sets = [
            ResidentExperts(self._reader, records, slots, eviction, seed + i, self._pool, self._ahead)
            for i, records in enumerate(groups)
        ]
        counts = [layer.experts for layer in layers]
        self._first_entry = (
            [0] * len(counts) if scope == "per-layer" else np.cumsum([0, *counts[:-1]]).tolist()
        )
        self._steps: list[ExpertStep] = []
        for layer in layers:
            held = self._set_of(layer.index)
            self._steps.append(expert_step(layer, SlotWeights.in_slots(layer, held.arena, held.stride)))

    @property
    def counters(self) -> Counters:
        """What all caches did so far, together."""
        total = reduce(add, (each.counters for each in self._sets), self._guesses)
        if self._ahead is None:
            return total
        ahead = self._ahead
        return total + Counters(
            bytes_read=ahead.bytes_read, read_ahead=ahead.started, taken_ahead=ahead.taken
        )

    @property
    def slots(self) -> int:
        """Slots of all caches."""
        return sum(each.cache.capacity for each in self._sets)

    @property
    def slot_bytes(self) -> int:
        """Bytes of all slots, and of the buffers for what is read ahead."""
        ahead = 0 if self._ahead is None else self._ahead.bytes
        return ahead + sum(each.cache.capacity * each.stride for each in self._sets)

    def resident(self, layer: int) -> NDArray[np.uint8]:
        """Return which experts of a layer are in memory, a view that follows the store. # uint8 [N]"""
        first = self._first_entry[layer]
        return self._set_of(layer).cache.resident[first : first + self._layers[layer].experts]

    def expect(self, layer: int, experts: Indices) -> None:
        """Take a guess of the experts that a layer will use next, before its router has spoken. # [K]"""
        self._expected[layer] = set(experts.tolist())
        self._set_of(layer).expect(experts + self._first_entry[layer], layer)

    def close(self) -> None:
        """Close the file; the store can serve nothing more."""
        if self._ahead is not None:
            self._ahead.close()
        self._reader.close()
        if self._pool is not None:
            self._pool.shutdown()

    def _set_of(self, layer: int) -> ResidentExperts:
        return self._sets[layer if len(self._sets) > 1 else 0]

    def _token(self, layer: ExpertLayer, x: Tensor, experts: Indices, weights: Tensor) -> Tensor:
        if self._keep_trace:
            self.trace[layer.index].append(experts.tolist())
        if (expected := self._expected.pop(layer.index, None)) is not None:
            self._guesses.guessable += len(experts)
            self._guesses.guessed += len(expected.intersection(experts.tolist()))
        slots = self._set_of(layer.index).serve(experts + self._first_entry[layer.index], layer.index)
        return self._steps[layer.index](x, slots, weights)


def _dispatch(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """What transformers calls in place of an experts module's forward."""
    found: Tensor = getattr(module, _ATTRIBUTE)(hidden_states, top_k_index, top_k_weights)
    return found
