"""Made-up routings of a mixture of experts; every name says that they are test data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from backend.experiments.evaluations.routing import RECORDED_RULES
from backend.experiments.routing_records import save_routing_record
from backend.home import Home
from backend.methods import Method, make_method
from backend.residency import ExpertTrace, RoutingRecord
from tests.figures.figures_samples import write_run

MODEL, TEXT = "test-moe", "test-moe-text"
LAYERS, EXPERTS, K = (1, 2, 3), 16, 4
WINDOWS, WINDOW = 4, 64
LABEL = f"{MODEL} · {TEXT} · {WINDOWS * WINDOW} tokens in windows of {WINDOW}"
EXPERT_BYTES = 1_000_000
LAMBDAS, SHARES = (0.1, 0.3, 0.6), (0.5, 0.75)
RUN = "20260101-002000-test-moe-0000"
TRACE = Path("test-trace.csv")


def selections(k: int = K, seed: int = 0, tokens: int = WINDOWS * WINDOW) -> dict[int, ExpertTrace]:
    """Return made-up selections: some experts are liked better, and what was used is used again."""
    found = {}
    for layer in LAYERS:
        rng = np.random.default_rng((seed, layer))
        liking, before = rng.normal(size=EXPERTS), np.zeros(EXPERTS)
        rows = []
        for _ in range(tokens):
            score = liking + 0.8 * before + rng.normal(size=EXPERTS)
            rows.append(np.argsort(-score)[:k].tolist())
            before = 0.7 * before + np.isin(np.arange(EXPERTS), rows[-1])
        found[layer] = ExpertTrace.from_lists(rows, EXPERTS)
    return found


def record(k: int = K) -> RoutingRecord:
    """Return the record of made-up selections."""
    return RoutingRecord.of(
        selections(k), lengths=[WINDOW] * WINDOWS, expert_bytes=EXPERT_BYTES, model=MODEL,
        about={"dense_bytes": 5_000_000}, rules=RECORDED_RULES,
    )  # fmt: skip


def described(policy: Method, model: str = MODEL) -> dict[str, Any]:
    """Return a cell of the kind "routing" as its events describe it."""
    evaluation = {
        "version": 1, "kind": "routing", "text": TEXT, "tokens": WINDOWS * WINDOW, "window": WINDOW,
        "dtype": "float32",
    }  # fmt: skip
    return {
        "model": model, "model_sha256": f"sha-{model}".ljust(64, "0"), "policy": policy.name,
        "policy_version": 1, "settings": policy.canonical(), "text": TEXT,
        "text_sha256": f"sha-{TEXT}".ljust(64, "0"), "evaluation": evaluation,
    }  # fmt: skip


def cell_id(policy: Method, model: str = MODEL) -> str:
    """Return the id of a made-up cell."""
    settings = json.dumps(policy.canonical(), sort_keys=True)
    return f"{abs(hash((policy.name, settings, model))):016x}"[:16]


def finished(
    policy: Method, miss_rate: float, delta: float, model: str = MODEL, k: int = K
) -> dict[str, Any]:
    """Return the ``cell_finished`` event of a made-up routing."""
    numbers: list[tuple[str, float, float | None]] = [
        ("perplexity", 20 * float(np.exp(delta)), 0.5), ("nll", float(np.log(20) + delta), 0.02),
        ("delta_nll", delta, 0.002), ("kl", 1.2 * abs(delta), 0.001), ("agreement", 1 - abs(delta), 0.01),
        ("miss_rate", miss_rate, None), ("misses_per_token", miss_rate * k * len(LAYERS), None),
        ("miss_bytes_per_token", miss_rate * k * len(LAYERS) * EXPERT_BYTES, None),
        ("experts_per_token", float(k), None), ("routing_change", 5 * abs(delta), None),
        ("routing_agreement", 1 - 5 * abs(delta), None), ("lost_mass", abs(delta), None),
        ("prefetch_recall", 0.8 - delta, None), ("prefetch_control", 1 - 5 * abs(delta), None),
        ("prefetch_wasted", 2.5, None),
        *((f"miss_rate_{layer}", miss_rate * (0.8 + 0.1 * i), None) for i, layer in enumerate(LAYERS)),
    ]  # fmt: skip
    measurements = [
        {"metric": m, "value": v, "stderr": s, "n": WINDOWS * (WINDOW - 1), "unit": "", "how": "measured"}
        for m, v, s in numbers
    ]
    return {
        "kind": "cell_finished", "cell": cell_id(policy, model), "description": described(policy, model),
        "measurements": measurements, "windows": {}, "seconds": 1.0,
    }  # fmt: skip


def write_moe(home: Home, model: str = MODEL, run: str = RUN) -> Home:
    """Add a model's routings to a home: the original, two that use fewer experts, a grid of Cache-Prior."""
    blind = [(make_method("original", {}), K, 0.0)]
    blind += [(make_method("expert_pruning", {"experts": k}), k, 0.02 * (K - k)) for k in (2, 3)]
    events = []
    for policy, k, delta in blind:
        made = record(k)
        save_routing_record(home, made, cell_id(policy, model), described(policy, model), {"run": run})
        events.append(finished(policy, made.curve("lru").miss_rate(EXPERTS // 2), delta, model, k))
    own = record()
    for share in SHARES:
        at = own.curve("lru").miss_rate(int(share * EXPERTS))
        for strength in LAMBDAS:
            policy = make_method("cache_prior", {"lambda_": strength, "cache_share": share})
            events.append(finished(policy, at * (1 - strength), 0.02 * strength**2, model))
    write_run(home, [], run, more=events)
    return home


def timed(
    policy: Method, share: float, tokens_per_s: float, resident_ms: float = 20.0, **asked: Any
) -> dict[str, Any]:
    """Return the ``cell_finished`` event of a made-up decoding with experts on disk."""
    said = described(policy)
    said["evaluation"] = {"version": 1, "kind": "expert_store", "cache_share": share, "text": TEXT} | asked
    ms = 1e3 / tokens_per_s
    numbers = {
        "tokens_per_s": tokens_per_s, "ms_per_token_median": ms, "ms_per_token_p10": 0.9 * ms,
        "ms_per_token_p90": 1.3 * ms, "resident_ms_per_token_median": resident_ms,
        "stock_ms_per_token_median": 1.25 * resident_ms, "speed_of_resident": resident_ms / ms,
        "miss_rate": 1 - share, "loaded_bytes_per_token": 1e6, "waiting_share": 0.4, "cached_share": share,
        "disturbed_rounds": 0.0,
    }  # fmt: skip
    spread = ("ms_per_token_median", "speed_of_resident")
    measurements = [
        {"metric": m, "value": v, "stderr": 0.02 * v if m in spread else None, "n": 384, "unit": "",
         "how": "measured"}
        for m, v in numbers.items()
    ]  # fmt: skip
    return {
        "kind": "cell_finished", "cell": f"speed-{policy.name}-{share}-{resident_ms}-{asked}",
        "description": said, "measurements": measurements, "windows": {}, "seconds": 20.0,
    }  # fmt: skip


def write_speeds(home: Home) -> Home:
    """Add decodings with experts on disk to a home."""
    events = [timed(make_method("original", {}), share, 40 * share) for share in (0.25, 0.5, 0.75)]
    events.append(timed(make_method("cache_prior", {"lambda_": 0.3, "cache_share": 0.5}), 0.5, 30.0))
    write_run(home, [], "20260101-002100-test-moe-speed-0000", more=events)
    return home


def trace_text() -> str:
    """Return a made-up trace of a device: two layers, a prompt of 8 tokens and 24 decoded."""
    lines = [
        "# route_trace v1",
        "# model=/tmp/test-model.gguf arch=test n_layer=3 n_expert=16 n_expert_used=4",
        *(f"# layer={layer} expert_bytes=2000000 dense_bytes=7000000" for layer in LAYERS),
        "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes",
    ]
    for layer, trace in selections(seed=1, tokens=32).items():
        for step, experts in enumerate(trace.members()):
            for slot, expert in enumerate(experts.tolist()):
                lines.append(f"0,{int(step >= 8)},{step},{layer},{slot},{expert},0.25,0,2000000")
    return "\n".join(lines) + "\n"
