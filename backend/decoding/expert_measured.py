"""What timing an expert store found, round by round, and as it is stored."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from backend.decoding.contention import TOLERATED
from backend.decoding.direct_reader import BYPASSES, Bypass
from backend.decoding.latency import spread_of
from backend.decoding.resident_experts import Counters

if TYPE_CHECKING:
    from backend.experiments.events import Measurement

_BYPASS_UNIT = ", ".join(f"{code} {name}" for code, name in enumerate(BYPASSES))


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
            ("ms_per_token_median", median, spread_of(windows["ms_per_token_median"]), "ms/token"),
            ("ms_per_token_p10", float(np.percentile(ms, 10)), None, "ms/token"),
            ("ms_per_token_p90", float(np.percentile(ms, 90)), None, "ms/token"),
            *(
                (name, medians[name], spread_of(windows[name]), "ms/token")
                for name in ("resident_ms_per_token_median", "stock_ms_per_token_median")
            ),
            (
                "speed_of_resident", medians["speed_of_resident"],
                spread_of(windows["speed_of_resident"]), "× all experts in memory",
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
