"""What a simulation found: one DRAM size, many at once, or recorded tokens replayed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from backend.devices.hit_curves import Floats

PARTS: dict[str, str] = {
    "attention": "attention, from DRAM",
    "head": "head, from DRAM",
    "embedding": "embedding, from DRAM",
    "kv": "KV cache, from DRAM",
    "predictor": "mask predictors, from DRAM",
    "mlp_unmasked": "MLP linears without a mask, from DRAM",
    "static_flash": "what must be resident and is not, from Flash",
    "mlp_dram": "MLP, cached in DRAM",
    "mlp_flash": "MLP, waiting for Flash",
}
"""The parts of a token's time, with their names for people, in the order of a stacked bar."""


@dataclass(frozen=True)
class Simulation:
    """A simulated device at one DRAM size. Every figure is simulated.

    Attributes:
        dram_gb: DRAM that the model may use, in GB.
        tokens_per_s: Tokens over time: 1/mean t_token.
        mean_of_rates_tokens_per_s: Mean over positions of 1/t_token, the KV cache growing.
        dense_tokens_per_s: The dense model streamed from Flash through the same DRAM.
        speedup: tokens_per_s/dense_tokens_per_s.
        hit_rate: Share of the masked bytes read that came from DRAM (of the MLP's for the dense model).
        mlp_density: Share of the MLPs' bytes that a token reads.
        memory_gb: DRAM in use: what is static and the caches, in GB.
        cache_gb: The caches, in GB.
        overflow_gb: What should be resident and does not fit, streamed for every token, in GB.
        model_gb: The whole model with its KV cache, in GB.
        static_gb: What has to be resident whatever is pruned, in GB.
        memory_saved: Share of model_gb that need not fit in DRAM: 1 − dram_gb/model_gb, 0 at least.
        seconds_by_part: Seconds a token by part (keys of ``PARTS``); they add up to 1/tokens_per_s.
        dense_seconds_by_part: The same for the dense model.
        hit_rate_by_site: Hit rate at ``mlp_in`` and ``mlp_mid``.
        cached_share_by_site: Share of the site's linears that its caches hold.
    """

    dram_gb: float
    tokens_per_s: float
    mean_of_rates_tokens_per_s: float
    dense_tokens_per_s: float
    speedup: float
    hit_rate: float
    mlp_density: float
    memory_gb: float
    cache_gb: float
    overflow_gb: float
    model_gb: float
    static_gb: float
    memory_saved: float
    seconds_by_part: dict[str, float]
    dense_seconds_by_part: dict[str, float]
    hit_rate_by_site: dict[str, float]
    cached_share_by_site: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return all figures with stable keys, units in their names."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class DramCurve:
    """A simulated device over DRAM sizes; the fields are :class:`Simulation`'s. # [P] each"""

    dram_gb: Floats
    tokens_per_s: Floats
    mean_of_rates_tokens_per_s: Floats
    dense_tokens_per_s: Floats
    hit_rate: Floats
    mlp_density: Floats
    memory_gb: Floats
    cache_gb: Floats
    overflow_gb: Floats
    seconds_by_part: dict[str, Floats]
    dense_seconds_by_part: dict[str, Floats]
    hit_rate_by_site: dict[str, Floats]
    cached_share_by_site: dict[str, Floats]
    model_gb: float
    static_gb: float

    @property
    def speedup(self) -> Floats:
        """tokens_per_s/dense_tokens_per_s. # [P]"""
        return self.tokens_per_s / self.dense_tokens_per_s

    def at(self, index: int) -> Simulation:
        """Return the figures of one DRAM size."""
        values: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                values[field.name] = {key: float(each[index]) for key, each in value.items()}
            else:
                values[field.name] = float(value[index]) if isinstance(value, np.ndarray) else value
        return Simulation(
            speedup=float(self.speedup[index]),
            memory_saved=max(0.0, 1 - float(self.dram_gb[index]) / self.model_gb),
            **values,
        )


@dataclass(frozen=True, eq=False)
class Replay:
    """Recorded tokens, simulated one by one.

    Attributes:
        seconds: Time of each token. # [T]
    """

    seconds: Floats

    @property
    def tokens_per_s(self) -> float:
        """All tokens over all time."""
        return float(len(self.seconds) / self.seconds.sum())

    @property
    def mean_of_rates_tokens_per_s(self) -> float:
        """Mean of the tokens' rates; never below tokens over time."""
        return float((1 / self.seconds).mean())
