"""Times decoding with experts loaded from disk, in turns with the same model all in memory.

Three sides decode the same text in turns of eight tokens: the *store* with its few slots, under the policy
that is measured; *resident*, the same arithmetic with every expert in memory and the model's own routing, so
that their difference is what loading costs; and *stock*, transformers' own experts. The store reads its
prompt token by token, so that its caches are warm as they would be, whatever the policy looks at.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.decoding.contention import TOLERATED, Contention
from backend.decoding.direct_reader import BYPASSES, Bypass
from backend.decoding.expert_file import ExpertFile
from backend.decoding.expert_layers import ExpertLayer
from backend.decoding.expert_store import AllResident, ExpertStore, Scope
from backend.decoding.resident_experts import Counters
from backend.errors import UserError
from backend.residency import Eviction

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.events import Measurement

BLOCK = 8
"""Tokens that one side decodes before the next one's turn."""
ATTEMPTS = 3
"""How often a disturbed round is tried."""
_CHECKED_TOKENS = 4
_BYPASS_UNIT = ", ".join(f"{code} {name}" for code, name in enumerate(BYPASSES))

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


@dataclass(frozen=True)
class StoreRound:
    """One undisturbed (or least disturbed) pass over the tokens.

    Attributes:
        store: Seconds of each timed token with the store.
        resident: With all experts in memory.
        stock: With transformers' own experts.
        did: What the store did in the timed tokens.
        others: Share of the processor that others took.
    """

    store: list[float]
    resident: list[float]
    stock: list[float]
    did: Counters
    others: float


@dataclass
class StoreLatency:
    """What the rounds so far measured.

    Attributes:
        bypass: How the page cache was passed by.
        layers: Layers with experts.
        slot_bytes: Memory of the slots.
        experts_bytes: Memory of all experts.
        cached_share: Share of the experts that the slots hold.
        rounds: The rounds.
    """

    bypass: Bypass
    layers: int
    slot_bytes: int
    experts_bytes: int
    cached_share: float
    rounds: list[StoreRound] = field(default_factory=list)

    @property
    def windows(self) -> dict[str, list[float]]:
        """Each round's median milliseconds a token of each side, and the store's speed of the resident's."""
        store, resident, stock = (
            [_median_ms(getattr(each, side)) for each in self.rounds]
            for side in ("store", "resident", "stock")
        )
        return {
            "ms_per_token_median": store,
            "resident_ms_per_token_median": resident,
            "stock_ms_per_token_median": stock,
            "speed_of_resident": [r / s for r, s in zip(resident, store, strict=True)],
        }

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored; times in milliseconds a token.

        Args:
            value_bytes: Not used: the bytes that were really read count.
        """
        ms = np.array([seconds for each in self.rounds for seconds in each.store]) * 1e3
        windows = self.windows
        medians = {name: statistics.median(values) for name, values in windows.items()}
        did = sum((each.did for each in self.rounds), Counters())
        tokens = len(ms)
        median = float(np.median(ms))
        values: list[tuple[str, float, float | None, str]] = [
            ("tokens_per_s", 1e3 / median, None, "tokens/s"),
            ("ms_per_token_median", median, _spread(windows["ms_per_token_median"]), "ms/token"),
            ("ms_per_token_p10", float(np.percentile(ms, 10)), None, "ms/token"),
            ("ms_per_token_p90", float(np.percentile(ms, 90)), None, "ms/token"),
            *(
                (name, medians[name], _spread(windows[name]), "ms/token")
                for name in ("resident_ms_per_token_median", "stock_ms_per_token_median")
            ),
            (
                "speed_of_resident", medians["speed_of_resident"],
                _spread(windows["speed_of_resident"]), "× all experts in memory",
            ),
            ("miss_rate", did.misses / max(1, did.accesses), None, "share of expert uses"),
            ("misses_per_token", did.misses / tokens, None, "experts/token, all layers"),
            ("experts_per_token", did.accesses / did.batches, None, "experts/token, mean over layers"),
            ("loaded_bytes_per_token", did.bytes_read / tokens, None, "B/token"),
            ("waiting_ms", did.waited_s / tokens * 1e3, None, "ms/token"),
            ("waiting_share", did.waited_s * 1e3 / float(ms.sum()), None, "share of the token's time"),
            ("cached_share", self.cached_share, None, "share of routed experts"),
            ("slot_bytes", float(self.slot_bytes), None, "B"),
            ("experts_bytes", float(self.experts_bytes), None, "B"),
            ("page_cache_bypass", float(BYPASSES.index(self.bypass)), None, _BYPASS_UNIT),
            ("others_cpu_share", max(each.others for each in self.rounds), None, "share of processor"),
            ("disturbed_rounds", sum(each.others > TOLERATED for each in self.rounds), None, "rounds"),
            *_loading(did, tokens),
        ]  # fmt: skip
        return [
            {
                "metric": name, "value": float(value), "stderr": spread, "n": tokens, "unit": unit,
                "how": "measured",
            }
            for name, value, spread, unit in values
        ]  # fmt: skip


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
                    DecodedSide(model, nullcontext),
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


def _loading(did: Counters, tokens: int) -> list[tuple[str, float, None, str]]:
    """Return the rate of loads; where some are read ahead, how good the guesses were."""
    if not did.guessable:
        return [("load_bytes_per_s", did.bytes_read / did.waited_s if did.waited_s else 0.0, None, "B/s")]
    return [
        ("guess_recall", did.guessed / did.guessable, None, "share of experts used"),
        ("read_ahead_share", did.taken_ahead / max(1, did.misses), None, "share of misses"),
        ("wasted_loads_per_token", (did.read_ahead - did.taken_ahead) / tokens, None, "experts/token"),
    ]


def _median_ms(seconds: Sequence[float]) -> float:
    return statistics.median(seconds) * 1e3


def _spread(values: Sequence[float]) -> float | None:
    """Return the standard error over rounds, None for fewer than two."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
