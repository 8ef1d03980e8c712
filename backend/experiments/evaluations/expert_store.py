"""Measured latency of a mixture of experts under a cache limit: experts that are missing come from disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import field_validator, model_validator

from backend.errors import UserError
from backend.experiments.evaluations.kinds import Evaluation, Outcome, evaluation_kind
from backend.experiments.evaluations.latency import FEWEST_TOKENS
from backend.settings import setting
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from backend.experiments.laboratory import Laboratory


@evaluation_kind
class ExpertStoreEvaluation(Evaluation):
    """Batch-one decoding with experts loaded from disk, in turns with all in memory and with stock."""

    kind = "expert_store"
    on_this_machine = True

    share: float = setting(
        0.5, "Share of the routed experts that the slots hold.", unit="share of routed experts", gt=0, le=1
    )
    slots: int | None = setting(
        None,
        "Slots of each layer (of all layers together for a global cache), in place of a share.",
        unit="experts",
        ge=1,
    )
    scope: Literal["per-layer", "global"] = setting(
        "per-layer", "A cache for each layer, or one that all layers share."
    )
    eviction: Literal["lru", "lfu", "random"] = setting("lru", "Which idle expert gives way to a miss.")
    seed: int = setting(0, "Seed of the random rule.", ge=0)
    direct: bool = setting(
        True, "Read past the operating system's page cache; off, a miss may be a copy in memory."
    )
    readers: int = setting(1, "Reads from disk under way at once.", ge=1, le=64)
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

    def outcomes(self, laboratory: Laboratory, model: str, policy: Policy) -> Iterator[Outcome]:
        """Time the store round by round."""
        from backend.decoding.expert_file import store_experts
        from backend.decoding.expert_latency import StoreSettings, measure_store
        from backend.decoding.expert_layers import find_expert_layers
        from backend.evaluation.windows import cut_windows

        loaded = laboratory.subject(model, self.dtype).loaded
        length = self.prompt + self.warm_up + self.tokens
        limit = getattr(loaded.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and length > limit:
            raise UserError(
                f"Prompt, warm-up and timed tokens come to {length:,}, but the model's context holds "
                f"{limit:,}."
            )
        layers = find_expert_layers(loaded.model)
        report = laboratory.report or (lambda message, share: None)
        file = store_experts(layers, laboratory.home.experts, f"{loaded.sha256} {self.dtype}", report)
        windows = cut_windows(laboratory.text(self.text), loaded.tokenizer, 1, length)
        settings = StoreSettings(
            self._slots([layer.experts for layer in layers]),
            self.scope,
            self.eviction,
            self.seed,
            self.direct,
            self.readers,
        )
        yield from measure_store(
            loaded.model,
            layers,
            file,
            windows.ids[0],
            settings,
            prompt=self.prompt,
            warm_up=self.warm_up,
            rounds=self.rounds,
        )

    def _slots(self, experts: list[int]) -> int:
        if self.slots is not None:
            return self.slots
        whole = sum(experts) if self.scope == "global" else max(experts)
        return int(self.share * whole + 1e-9)  # 0.29 · 100 is a little less than 29 in floating point
