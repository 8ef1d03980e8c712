"""Measured latency of a mixture of experts under a cache limit: experts that are missing come from disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import field_validator, model_validator

from backend.errors import UserError
from backend.experiments.evaluations.kinds import Evaluation, Outcome, evaluation_kind
from backend.experiments.evaluations.latency import FEWEST_TOKENS
from backend.residency import Eviction
from backend.routing.cache_conditional import CacheConditional
from backend.routing.policy import RoutingPolicy
from backend.settings import setting

if TYPE_CHECKING:
    from backend.decoding.expert_latency import StoreSettings
    from backend.decoding.expert_layers import ExpertLayer
    from backend.experiments.laboratory import Laboratory

HALF = 0.5
"""Share of the experts that is in memory unless a setting says otherwise."""


@evaluation_kind
class ExpertStoreEvaluation(Evaluation):
    """Batch-one decoding with experts loaded from disk, in turns with all in memory and with stock.

    A policy that looks at a cache brings its size and rule; for the others they are set here.
    """

    kind = "expert_store"
    takes = RoutingPolicy
    on_this_machine = True

    cache_share: float | None = setting(
        None,
        "Share of the routed experts that are in memory; by default the policy's cache, or half of them.",
        unit="share of experts", symbol="C/N", gt=0, le=1,
    )  # fmt: skip
    slots: int | None = setting(
        None,
        "Experts of a layer in memory (of all layers together for a global cache), in place of a share.",
        unit="experts", symbol="C", ge=1,
    )  # fmt: skip
    scope: Literal["per-layer", "global"] = setting(
        "per-layer", "A cache for each layer, or one that all layers share."
    )
    eviction: Literal["lru", "lfu", "random"] | None = setting(
        None, "Which idle expert gives way to a miss; by default the policy's rule, or lru."
    )
    seed: int = setting(0, "Seed of the random rule.", ge=0)
    direct: bool = setting(
        True, "Read past the operating system's page cache; off, a miss may be a copy in memory."
    )
    readers: int = setting(1, "Reads from disk under way at once.", ge=1, le=64)
    prefetch: bool = setting(
        False,
        "Read ahead: guess each layer's experts by its own router on the input of the router before it, and "
        "read them while that layer computes.",
    )
    prompt: int = setting(
        64, "Tokens of the prompt, which fill the caches and are not timed.", unit="tokens", ge=1
    )
    tokens: int = setting(
        128, "Tokens timed in each round, on each of the three sides.", unit="tokens", ge=FEWEST_TOKENS
    )
    warm_up: int = setting(8, "Tokens decoded before timing, in each round.", unit="tokens", ge=0)
    rounds: int = setting(3, "How often the whole is repeated; medians are over all rounds.", ge=1)
    repeat: int = setting(0, "A number that makes the same measurement a new one.", ge=0)

    @field_validator("eviction", mode="before")
    @classmethod
    def _knows_no_future(cls, eviction: Any) -> Any:
        if eviction == "belady":
            raise ValueError(
                "Belady's rule evicts what is needed last, which a store that runs cannot know; choose lru, "
                "lfu or random"
            )
        return eviction

    @model_validator(mode="after")
    def _plain_weights(self) -> Self:
        if self.dtype == "int8":
            raise ValueError("dtype int8 cannot be loaded from a store; choose float32, bfloat16 or float16")
        return self

    @property
    def steps(self) -> int:
        """Number of rounds."""
        return self.rounds

    def check(self, policy: Any) -> None:
        """Refuse an oracle, and a policy whose cache is another one than the store's."""
        if policy.how == "oracle":
            raise UserError(f"{policy.title} is an oracle, so it has no latency; choose another policy.")
        if not policy.looks_at_cache:
            return
        if self.scope == "global":
            raise UserError(
                f"{policy.title} looks at a cache of each layer, so it cannot run on one that all layers "
                "share."
            )
        for name in ("cache_share", "slots", "eviction"):
            asked, looked_at = getattr(self, name), getattr(policy, name, None)
            if asked is not None and asked != looked_at:
                raise UserError(
                    f"{policy.title} looks at a cache with {name} {looked_at}, and the store is asked for "
                    f"{asked}; leave it out here, and the store is what the policy looks at."
                )

    def outcomes(self, laboratory: Laboratory, model: str, policy: Any) -> Iterator[Outcome]:
        """Time the store round by round."""
        from backend.decoding.expert_file import store_experts
        from backend.decoding.expert_latency import measure_store
        from backend.decoding.expert_layers import check_slots, find_expert_layers
        from backend.decoding.expert_routing import StoreRouting
        from backend.evaluation.windows import cut_windows
        from backend.experiments.calibration import calibrate

        subject = laboratory.subject(model, self.dtype)
        loaded = subject.loaded
        length = self.prompt + self.warm_up + self.tokens
        limit = getattr(loaded.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length > limit:
            raise UserError(
                f"Prompt, warm-up and timed tokens come to {length:,}, but the model's context holds "
                f"{limit:,}."
            )
        layers = find_expert_layers(loaded.model)
        settings = self._store_settings(policy, layers)
        check_slots(loaded.model, settings.slots)  # before anything is fitted or written
        windows = cut_windows(laboratory.text(self.text), loaded.tokenizer, 1, length)
        found = calibrate(laboratory, model, self.dtype, policy, windows.ids.tolist())
        routing = StoreRouting(
            subject.routing.anatomy,
            layers,
            policy,
            slots=settings.slots,
            prompt=self.prompt,
            calibration=found.fitted,
            prefetch=self.prefetch,
        )
        report = laboratory.report or (lambda message, share: None)
        file = store_experts(layers, laboratory.home.experts, f"{loaded.sha256} {self.dtype}", report)
        results = measure_store(
            loaded.model,
            layers,
            file,
            windows.ids[0],
            settings,
            prompt=self.prompt,
            warm_up=self.warm_up,
            rounds=self.rounds,
            routing=routing,
        )
        yield from found.noted(results)

    def _store_settings(self, policy: RoutingPolicy, layers: tuple[ExpertLayer, ...]) -> StoreSettings:
        from backend.decoding.expert_latency import StoreSettings

        counts = [layer.experts for layer in layers]
        share, slots = self.cache_share or HALF, self.slots
        eviction: Eviction = self.eviction or "lru"
        if isinstance(policy, CacheConditional):
            share, slots, eviction = policy.cache_share, policy.slots, policy.eviction
        whole = sum(counts) if self.scope == "global" else max(counts)
        fitting = int(share * whole + 1e-9) if slots is None else slots  # 0.29 · 100 is less than 29
        return StoreSettings(
            fitting, self.scope, eviction, self.seed, self.direct, self.readers, self.prefetch
        )
