"""Times a policy's decoding against dense decoding, interleaved in one run on the same tokens."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.decoding.bandwidth import MemoryReader
from backend.decoding.contention import TOLERATED, Contention
from backend.decoding.decoder import Decoding, DecodingModel, Execution, Prefill, ready_for
from backend.decoding.parts import Parts
from backend.sparsity.accounting import Reading
from backend.sparsity.engine import MaskedEngine
from backend.sparsity.policy import Policy, make_policy

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.events import Measurement

BLOCK = 8
"""Tokens that one side decodes before the other's turn: caches see what they would see alone."""
ATTEMPTS = 3
"""How often a disturbed round is tried."""


@dataclass(frozen=True)
class Round:
    """One undisturbed (or least disturbed) pass over the tokens.

    Attributes:
        dense: Dense decoding's parts, one a timed token.
        sparse: The policy's.
        reading: What the policy read.
        prompt_seconds: What reading the prompt took, dense and under the policy, with what the policy makes
            of it before the first token.
        bandwidth: Bytes a second that a plain read of memory reached, beside the round.
        others: Share of the processor that others took.
    """

    dense: list[Parts]
    sparse: list[Parts]
    reading: Reading
    prompt_seconds: tuple[float, float]
    bandwidth: float
    others: float


@dataclass
class Latency:
    """What the rounds so far measured.

    Attributes:
        loop: Which loop decoded: "lean" or "transformers".
        kv_bytes: Bytes of keys and values that a token reads, in the middle of the timed tokens.
        value_bytes: Bytes of one weight as the kernels read it.
        copied_bytes: Bytes of weights held beside the model's own.
        rounds: The rounds.
    """

    loop: str
    kv_bytes: float
    value_bytes: float
    copied_bytes: int
    rounds: list[Round] = field(default_factory=list)

    @property
    def windows(self) -> dict[str, list[float]]:
        """Each round's median milliseconds a token, dense and sparse, and their ratio."""
        sparse = [_median_ms(each.sparse) for each in self.rounds]
        dense = [_median_ms(each.dense) for each in self.rounds]
        ratios = [d / s for d, s in zip(dense, sparse, strict=True)]
        return {"ms_per_token_median": sparse, "dense_ms_per_token_median": dense, "speedup": ratios}

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored; times in milliseconds a token.

        Args:
            value_bytes: Not used: the kernels' own bytes count.
        """
        sparse = [parts for each in self.rounds for parts in each.sparse]
        dense = [parts for each in self.rounds for parts in each.dense]
        n = len(sparse)
        ms = np.array([parts.total for parts in sparse]) * 1e3
        median, dense_median = float(np.median(ms)), _median_ms(dense)
        mlp, dense_mlp = _median_ms(sparse, "mlp"), _median_ms(dense, "mlp")
        sides = zip(*(each.prompt_seconds for each in self.rounds), strict=True)
        dense_prompt, prompt = (statistics.median(side) for side in sides)
        reading = self.rounds[-1].reading
        weights = reading.bytes_per_token(self.value_bytes)
        dense_weights = reading.anatomy.weights_per_token * self.value_bytes
        bandwidth = max(each.bandwidth for each in self.rounds)
        rate = (weights + self.kv_bytes) / median * 1e3
        dense_rate = (dense_weights + self.kv_bytes) / dense_median * 1e3
        windows = self.windows
        values: list[tuple[str, float, float | None, str]] = [
            ("tokens_per_s", 1e3 / median, None, "tokens/s"),
            ("ms_per_token_median", median, spread_of(windows["ms_per_token_median"]), "ms/token"),
            ("ms_per_token_p10", float(np.percentile(ms, 10)), None, "ms/token"),
            ("ms_per_token_p90", float(np.percentile(ms, 90)), None, "ms/token"),
            (
                "dense_ms_per_token_median", dense_median,
                spread_of(windows["dense_ms_per_token_median"]), "ms/token",
            ),
            ("speedup", dense_median / median, spread_of(windows["speedup"]), "× dense"),
            ("mlp_ms", mlp, None, "ms/token"),
            ("dense_mlp_ms", dense_mlp, None, "ms/token"),
            ("mlp_ratio", mlp / dense_mlp if dense_mlp else 1.0, None, "share of dense MLP time"),
            ("attention_ms", _median_ms(sparse, "attention"), None, "ms/token"),
            ("head_ms", _median_ms(sparse, "head"), None, "ms/token"),
            ("overhead_ms", _median_ms(sparse, "overhead"), None, "ms/token"),
            ("prompt_ms", prompt * 1e3, None, "ms"),
            ("dense_prompt_ms", dense_prompt * 1e3, None, "ms"),
            ("mlp_density", reading.mlp_density, None, "share of MLP weights"),
            ("model_density", reading.model_density, None, "share of all weights"),
            ("bytes_per_token", weights, None, "B/token"),
            ("kv_bytes_per_token", self.kv_bytes, None, "B/token"),
            ("copied_weight_bytes", float(self.copied_bytes), None, "B"),
            ("bandwidth_bytes_per_s", bandwidth, None, "B/s"),
            ("read_bytes_per_s", rate, None, "B/s"),
            ("bandwidth_share", rate / bandwidth, None, "share of bandwidth"),
            ("dense_bandwidth_share", dense_rate / bandwidth, None, "share of bandwidth"),
            ("others_cpu_share", max(each.others for each in self.rounds), None, "share of processor"),
            ("disturbed_rounds", sum(each.others > TOLERATED for each in self.rounds), None, "rounds"),
            ("lean_loop", float(self.loop == "lean"), None, "1 lean loop, 0 transformers"),
        ]  # fmt: skip
        return [
            {"metric": name, "value": float(value), "stderr": spread, "n": n, "unit": unit, "how": "measured"}
            for name, value, spread, unit in values
        ]


def measure_latency(
    engine: MaskedEngine,
    policy: Policy,
    ids: Tensor,
    *,
    prompt: int,
    warm_up: int,
    rounds: int,
    int8: bool = False,
    execution: Execution = "gathered",
    prefill: Prefill = "dense",
    calibration: Any = None,
) -> Iterator[Latency]:
    """Time a policy and the dense model, in turns of eight tokens, fed with the same text.

    Between two rounds the model is dense and untouched.

    Args:
        engine: The model.
        policy: The policy.
        ids: Prompt and tokens to feed. # [T]
        prompt: Length of the prompt.
        warm_up: Tokens fed before timing, of each side and in each round.
        rounds: How many rounds.
        int8: The model's linear weights were rounded to int8 and are read as such.
        execution: How the policy is run; dense is always gathered.
        prefill: How the policy reads the prompt.
        calibration: What the policy was fitted to.

    Yields:
        The growing result, once a round.
    """
    reader = MemoryReader()
    result: Latency | None = None
    for _ in range(rounds):
        with ready_for(engine, policy, int8=int8) as model:
            tried: list[Round] = []
            for _attempt in range(ATTEMPTS):
                sparse = Decoding(
                    model,
                    policy,
                    len(ids),
                    execution=execution,
                    prefill=prefill,
                    calibration=calibration,
                )
                tried.append(_round(model, sparse, ids, prompt, warm_up, reader))
                if tried[-1].others <= TOLERATED:
                    break
            if result is None:
                value_bytes = 1 if int8 else next(engine.model.parameters()).element_size()
                copied = 0 if model.lean is None else model.lean.copied_bytes
                kv_bytes = _kv_bytes(engine, (prompt + len(ids)) / 2)
                result = Latency(sparse.loop, kv_bytes, value_bytes, copied)
        result.rounds.append(min(tried, key=lambda each: each.others))
        yield result


def _round(
    model: DecodingModel, sparse: Decoding, ids: Tensor, prompt: int, warm_up: int, reader: MemoryReader
) -> Round:
    dense = Decoding(model, make_policy("dense", {}), len(ids))
    begun = time.perf_counter()
    dense.read_prompt(ids[:prompt])
    between = time.perf_counter()
    sparse.read_prompt(ids[:prompt])
    prompt_seconds = between - begun, time.perf_counter() - between
    tokens = ids[prompt:].tolist()
    times: dict[Decoding, list[Parts]] = {dense: [], sparse: []}
    bandwidth = reader.bytes_per_second()
    with _no_collection():
        for side in (dense, sparse):
            for token in tokens[:warm_up]:
                side.feed(token)
        contention = Contention()
        for turn, start in enumerate(range(warm_up, len(tokens), BLOCK)):
            for side in (dense, sparse) if turn % 2 == 0 else (sparse, dense):
                for token in tokens[start : start + BLOCK]:
                    side.feed(token)
                    times[side].append(side.parts)
        others = contention.share()
    bandwidth = max(bandwidth, reader.bytes_per_second())
    return Round(times[dense], times[sparse], sparse.settle(), prompt_seconds, bandwidth, others)


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _median_ms(parts: list[Parts], name: str = "total") -> float:
    values: list[float] = [getattr(each, name) for each in parts]
    return statistics.median(values) * 1e3


def spread_of(values: list[float]) -> float | None:
    """Return the standard error over rounds, None for fewer than two."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def _kv_bytes(engine: MaskedEngine, tokens: float) -> float:
    """Return the bytes of keys and values that one token reads with so many before it."""
    config = engine.model.config.get_text_config()
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    value_bytes = next(engine.model.parameters()).element_size()
    return float(2 * tokens * groups * width * config.num_hidden_layers * value_bytes)
