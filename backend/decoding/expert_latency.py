"""Times decoding with experts loaded from disk, in turns with the same model all in memory.

Three sides decode the same text in turns of eight tokens: the *store* with its few slots, under the policy
that is measured; *resident*, the same arithmetic with every expert in memory and the model's own routing, so
that their difference is what loading costs; and *stock*, transformers' own experts. The store reads its
prompt token by token, so that its caches are warm as they would be, whatever the policy looks at.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.decoding.contention import TOLERATED, Contention
from backend.decoding.expert_file import ExpertFile
from backend.decoding.expert_layers import ExpertLayer
from backend.decoding.expert_measured import StoreLatency, StoreRound
from backend.decoding.expert_store import AllResident, ExpertStore, Scope
from backend.decoding.latency import ATTEMPTS, BLOCK
from backend.errors import UserError
from backend.models.derived_moe.masked_experts import transformers_experts
from backend.residency import Eviction

if TYPE_CHECKING:
    from torch import Tensor

_CHECKED_TOKENS = 4

Applied = Callable[[], AbstractContextManager[Any]]
"""Makes the context of one turn."""
Routing = Callable[[ExpertStore], Applied]
"""Begins a sequence under a policy, which sees the resident experts; what is returned re-routes a turn."""


@dataclass(frozen=True)
class StoreSettings:
    """How the store runs.

    Attributes:
        slots: Slots of each layer, or of all for a global cache.
        scope: One cache a layer, or one that all share.
        eviction: The rule.
        seed: Of the random rule.
        direct: Past the page cache.
        readers: Reads under way at once.
        prefetch: Experts are read ahead, on guesses that the routing makes.
    """

    slots: int
    scope: Scope = "per-layer"
    eviction: Eviction = "lru"
    seed: int = 0
    direct: bool = True
    readers: int = 1
    prefetch: bool = False


def measure_store(
    model: Any,
    layers: Sequence[ExpertLayer],
    file: ExpertFile,
    ids: Tensor,
    settings: StoreSettings,
    *,
    prompt: int,
    warm_up: int,
    rounds: int,
    routing: Routing | None = None,
) -> Iterator[StoreLatency]:
    """Time a store and its two comparisons in turns; between two rounds the model is untouched.

    Args:
        model: The model.
        layers: Its experts.
        file: Where they lie on disk.
        ids: Prompt and tokens to feed. # [T]
        settings: How the store runs.
        prompt: Length of the prompt.
        warm_up: Tokens fed before timing, on each side and in each round.
        rounds: How many rounds.
        routing: What re-routes the store's side, begun anew in each round; None: nothing does.

    Yields:
        The growing result, once a round.

    Raises:
        UserError: The store cannot run so, or its arithmetic is not the model's.
    """
    from backend.decoding.decoder import use_threads

    use_threads()
    resident = AllResident(model, layers)
    check_arithmetic(resident, layers)
    result: StoreLatency | None = None
    for _ in range(rounds):
        tried: list[StoreRound] = []
        for _attempt in range(ATTEMPTS):
            with closing(_opened(model, layers, file, settings)) as store:
                sides = [
                    DecodedSide(model, _under(store, nullcontext if routing is None else routing(store))),
                    DecodedSide(model, lambda: resident),
                    DecodedSide(model, lambda: transformers_experts(model)),
                ]
                tried.append(_round(sides, store, ids, prompt, warm_up))
            if tried[-1].others <= TOLERATED:
                break
        if result is None:
            experts = sum(layer.experts for layer in layers)
            whole = sum(layer.experts * layer.expert_bytes for layer in layers)
            result = StoreLatency(store.bypass, len(layers), store.slot_bytes, whole, store.slots / experts)
        result.rounds.append(min(tried, key=lambda each: each.others))
        yield result


class DecodedSide:
    """One sequence of one side, decoded by transformers' own loop.

    Args:
        model: The model.
        applied: Makes the context of a turn: whose experts run, and what re-routes.
    """

    def __init__(self, model: Any, applied: Applied) -> None:
        self._model, self._applied = model, applied
        self._cache: Any = None

    def read_prompt(self, ids: Tensor, *, stepwise: bool) -> None:
        """Read the prompt, at once or token by token. # [T]"""
        if stepwise:
            self.feed(ids.tolist())
            return
        with self._applied():
            self._step(ids[None])

    def feed(self, tokens: Sequence[int]) -> list[float]:
        """Feed tokens in one turn; return the seconds of each."""
        import torch

        seconds = []
        with self._applied():
            for token in tokens:
                begun = time.perf_counter()
                self._step(torch.tensor([[token]]))
                seconds.append(time.perf_counter() - begun)
        return seconds

    def _step(self, ids: Tensor) -> Tensor:
        """Return the logits after the last of these tokens. # [1, T] → [V]"""
        import torch

        with torch.inference_mode():
            output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True)
        self._cache = output.past_key_values
        logits: Tensor = output.logits[0, -1]
        return logits


def check_arithmetic(running: AllResident, layers: Sequence[ExpertLayer]) -> None:
    """Compare our arithmetic with the model's own experts, layer by layer on random input.

    Raises:
        UserError: They differ by more than rounding.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    for layer in layers:
        d = layer.shapes["down_proj"][-1 if layer.module.is_transposed else 0]
        x = torch.randn(_CHECKED_TOKENS, d, generator=generator).to(layer.dtype)
        k = min(2, layer.experts)
        chosen = torch.stack([(torch.arange(k) + t) % layer.experts for t in range(_CHECKED_TOKENS)])
        weights = torch.rand(chosen.shape, generator=generator).to(layer.dtype)
        with torch.inference_mode():
            expected = layer.module(x, chosen, weights)
            with running:
                got = layer.module(x, chosen, weights)
        tolerance = 1e-4 if layer.dtype == torch.float32 else 3e-2
        if not torch.allclose(got, expected, rtol=0, atol=tolerance * float(expected.abs().max())):
            raise UserError(
                f"The experts of layer {layer.name} compute something that the store does not know, so it "
                "would give other logits; please report the model's name."
            )


def _opened(
    model: Any, layers: Sequence[ExpertLayer], file: ExpertFile, settings: StoreSettings
) -> ExpertStore:
    store = ExpertStore(model, layers, file, **vars(settings))
    if settings.direct and store.bypass == "none":
        store.close()
        raise UserError(
            f"{file.path.parent} lies in memory (tmpfs), so nothing can be loaded from disk there; name a "
            "home on a disk with --home."
        )
    return store


def _under(store: ExpertStore, rerouted: Applied) -> Applied:
    @contextmanager
    def applied() -> Iterator[None]:
        with store, rerouted():
            yield

    return applied


def _round(
    sides: Sequence[DecodedSide], store: ExpertStore, ids: Tensor, prompt: int, warm_up: int
) -> StoreRound:
    for i, side in enumerate(sides):
        side.read_prompt(ids[:prompt], stepwise=i == 0)
    tokens = ids[prompt:].tolist()
    seconds: list[list[float]] = [[] for _ in sides]
    gc.collect()
    gc.disable()
    try:
        for side in sides:
            side.feed(tokens[:warm_up])
        before = store.counters
        contention = Contention()
        for turn, start in enumerate(range(warm_up, len(tokens), BLOCK)):
            for i in range(len(sides)):
                at = (i + turn) % len(sides)
                seconds[at] += sides[at].feed(tokens[start : start + BLOCK])
        others = contention.share()
    finally:
        gc.enable()
    return StoreRound(seconds[0], seconds[1], seconds[2], store.counters - before, others)
