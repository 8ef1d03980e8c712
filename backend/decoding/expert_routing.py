"""A routing policy on a store's side: it is asked token by token, and sees what the store really holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.decoding.expert_latency import Applied
from backend.decoding.expert_layers import ExpertLayer
from backend.decoding.expert_store import ExpertStore
from backend.errors import UserError
from backend.residency.expert_cache import ExpertCache
from backend.routing import Routes, RoutingContext, RoutingPolicy
from backend.routing.cache_conditional import CacheConditional
from backend.routing.hooks import rerouted
from backend.routing.prefetch import guessing

if TYPE_CHECKING:
    from backend.routing.anatomy import MoEAnatomy, MoELayer
    from backend.routing.engine import Calibration


class ResidentView(ExpertCache):
    """The cache that a policy looks at, showing a store's resident experts in place of a simulated cache's.

    The store itself follows, when it serves what was chosen; so one token is chosen at a time.

    Args:
        resident: What the store holds of the layer, a view that follows it. # uint8 [N]
        capacity: The store's slots of the layer.
    """

    def __init__(self, resident: NDArray[np.uint8], capacity: int) -> None:
        super().__init__(len(resident), capacity)
        self._held = resident

    def choose(
        self, order: NDArray[np.int32], scores: NDArray[np.float32], k: int, **how: Any
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Choose one token's experts by what the store holds now; see :meth:`ExpertCache.choose`."""
        if len(order) != 1:
            raise ValueError("a store's resident experts are known for the next token only")
        self.resident[:] = self._held
        return super().choose(order, scores, k, **how)


class StoreRouting:
    """Begins sequences under a policy: what :func:`backend.decoding.expert_latency.measure_store` takes.

    Args:
        anatomy: The model's routers.
        layers: Its experts, as the store has them.
        policy: The policy.
        slots: The store's slots of a layer.
        prompt: First tokens that are the prompt: a policy may leave their routing as it is.
        calibration: What the policy was fitted to.
        prefetch: Guess each layer's experts by its own router on the input of the router before it.

    Raises:
        UserError: The policy's settings do not fit the model, or its cache is not the store's.
    """

    def __init__(
        self,
        anatomy: MoEAnatomy,
        layers: Sequence[ExpertLayer],
        policy: RoutingPolicy,
        *,
        slots: int,
        prompt: int = 0,
        calibration: Calibration | None = None,
        prefetch: bool = False,
    ) -> None:
        self._anatomy, self._policy, self._slots = anatomy, policy, slots
        self._calibration, self._prefetch = calibration, prefetch
        self._as_it_is = 0 if policy.reroutes_prompt else prompt
        # Most routers name their experts by rank; some (DeepSeek-V3) in any order, and caches go by rank.
        in_order = all(
            not layer.selection.biased and not layer.selection.groups for layer in anatomy.layers.values()
        )
        self._reroutes = policy.name != "original" or not in_order
        places = {id(layer.module): layer.index for layer in layers}
        self._places = {index: places[id(layer.experts)] for index, layer in anatomy.layers.items()}
        for layer in anatomy.layers.values():
            policy.fit(layer.size, layer.k)
            if isinstance(policy, CacheConditional) and policy.capacity(layer.size, layer.k) != slots:
                raise UserError(
                    f"{policy.title} is set for a cache of {policy.capacity(layer.size, layer.k)} experts a "
                    f"layer, the store has {slots} slots; give both the same."
                )

    def __call__(self, store: ExpertStore) -> Applied:
        """Begin a sequence; the store's side is decoded token by token within what is returned."""
        contexts = {
            index: self._context(index, layer, store) for index, layer in self._anatomy.layers.items()
        }

        def choose(layer: MoELayer, routes: Routes) -> NDArray[np.int32]:
            context = contexts[layer.layer]
            if context.tokens < self._as_it_is:
                self._policy.follow(routes, context)
                chosen = routes.original
            else:
                chosen = self._policy.choose(routes, context)
            context.tokens += routes.tokens
            return chosen

        def expect(layer: int, experts: NDArray[np.int64]) -> None:
            if len(experts) == 1:
                store.expect(self._places[layer], experts[0])

        @contextmanager
        def applied() -> Iterator[None]:
            with ExitStack() as stack:
                if self._reroutes:
                    stack.enter_context(rerouted(self._anatomy.layers, choose))
                if self._prefetch:
                    stack.enter_context(guessing(self._anatomy.layers, expect))
                yield

        return applied

    def _context(self, index: int, layer: MoELayer, store: ExpertStore) -> RoutingContext:
        context = RoutingContext(index, layer.size, layer.k, sequence=0, calibration=self._calibration)
        context.state = self._policy.start(context)
        if isinstance(self._policy, CacheConditional):
            context.state.cache = ResidentView(store.resident(self._places[index]), self._slots)
        return context
