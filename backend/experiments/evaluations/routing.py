"""Perplexity of a routing policy beside a mixture's original routing, and what its expert caches miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import model_validator

from backend.experiments.evaluations.fidelity import FidelityEvaluation
from backend.experiments.evaluations.kinds import Outcome, evaluation_kind
from backend.residency import EVICTIONS, Eviction
from backend.routing.policy import RoutingPolicy
from backend.settings import setting

if TYPE_CHECKING:
    from backend.evaluation.routing import RoutingFidelity, RoutingReference
    from backend.experiments.cells import Cell
    from backend.experiments.events import Measurement
    from backend.experiments.laboratory import Laboratory, Subject
    from backend.home import Home

KEPT_TOKENS = 256
"""Tokens whose experts are kept in a cell's record; its curves are of all."""
RECORDED_RULES: tuple[Eviction, ...] = EVICTIONS
"""Rules whose curves a cell's record has. Random costs a walk as LFU and Belady do: about 1.3 ms of processor
time for a layer of 64 experts, 16 of them used, and 1,024 tokens."""


@evaluation_kind
class RoutingEvaluation(FidelityEvaluation):
    """Perplexity and fidelity to the original routing on windows of a text, with expert misses.

    A policy that looks at a cache brings its own; for the others, the cache is set here, and every other
    size follows from the record that the cell leaves behind.
    """

    kind = "routing"
    takes = RoutingPolicy

    cache_share: float = setting(
        0.5,
        "Share of a layer's experts that fit in fast memory, for policies that do not look at the cache.",
        unit="share of experts", symbol="C/N", gt=0, le=1,
    )  # fmt: skip
    slots: int | None = setting(
        None, "Experts of a layer that fit, in place of cache_share.", unit="experts", symbol="C", ge=1
    )
    eviction: Literal["lru", "lfu", "random"] = setting("lru", "Which idle expert leaves a full cache.")
    start: Literal["cold", "warm"] = setting(
        "cold",
        "cold: every token counts, from empty caches; warm: only tokens after the prompt, which fills them.",
    )

    @model_validator(mode="after")
    def _warmed_by_a_prompt(self) -> Self:
        if self.start == "warm" and self.prompt is None:
            raise ValueError("start 'warm' counts what follows a prompt; give one (prompt: 128)")
        return self

    def check(self, policy: Any) -> None:
        """Every routing policy can be evaluated this way; a prompt is no must."""

    def outcomes(self, laboratory: Laboratory, model: str, policy: Any) -> Iterator[Outcome]:
        """Score a policy window by window."""
        from backend.evaluation.routing import CacheSetup, evaluate_routing
        from backend.experiments.calibration import calibrate

        subject = laboratory.subject(model, self.dtype)
        reference = self._reference(laboratory, subject)
        cache = CacheSetup(self.cache_share, self.slots, self.eviction, self.start)
        found = calibrate(laboratory, model, self.dtype, policy, reference.windows.ids.tolist())
        results = evaluate_routing(subject.routing, policy, reference, cache, found.fitted)
        name, dense_bytes = subject.loaded.name, subject.routing.anatomy.dense_bytes
        yield from found.noted(RoutingOutcome(result, name, dense_bytes) for result in results)

    def _reference(self, laboratory: Laboratory, subject: Subject) -> RoutingReference:
        from backend.evaluation.routing import RoutingReference
        from backend.evaluation.windows import cut_windows

        text = laboratory.text(self.text)

        def make() -> RoutingReference:
            windows = cut_windows(text, subject.loaded.tokenizer, self.steps, self.window, self.stride)
            return RoutingReference(windows.after(self.prompt or 0))

        key = ("routing", text.sha256, self.tokens, self.window, self.stride, self.prompt)
        return laboratory.kept(key, make)


@dataclass(frozen=True)
class RoutingOutcome:
    """A routing cell so far; a finished one leaves a record of its experts beside its measurements."""

    result: RoutingFidelity
    model: str
    dense_bytes: int

    @property
    def windows(self) -> dict[str, list[float]]:
        """Metric → one value a window."""
        return self.result.windows

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored."""
        return self.result.measurements(value_bytes)

    def keep(self, home: Home, cell: Cell, provenance: dict[str, Any]) -> None:
        """Write the record of the finished cell: traffic, misses of every cache size, the first experts."""
        import numpy as np

        from backend.evaluation.routing import joined
        from backend.experiments.routing_records import save_routing_record
        from backend.residency import RoutingRecord

        result = self.result
        warm = result.cache.start == "warm"
        record = RoutingRecord.of(
            {layer: joined(parts) for layer, parts in result.traces.items()},
            counted=np.concatenate(result.counted) if warm else None,
            lengths=result.lengths,
            expert_bytes=result.expert_bytes,
            model=self.model,
            rules=RECORDED_RULES,
            keep_tokens=KEPT_TOKENS,
            about={"dense_bytes": self.dense_bytes},
        )
        save_routing_record(home, record, cell.id, cell.description(), provenance)
