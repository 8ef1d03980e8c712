"""Expert routing in one pass against token by token, and miss curves: ``python -m benchmarks.routing``.

1. Each policy in one pass over a window, beside the same hooked Hugging Face model fed one token at a time
   with its key-value cache, over the window's first ``--stepwise`` tokens (later ones take longer, so the
   ratio is a lower bound). Selections and misses are compared. In float32 a few near-ties fall the other way,
   since a batched product rounds unlike a single one, and the caches then go their own ways; ``--dtype
   float64`` shows that nothing else does.
2. The misses of every cache size of a recorded trace of 48 layers of 128 experts, under LRU, LFU and Belady.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from backend.evaluation.windows import cut_windows
from backend.experiments.laboratory import Laboratory, Subject
from backend.home import Home, data_root
from backend.residency import Eviction, MissCurve, miss_curve_of, read_route_trace, simulate, total
from backend.routing import RoutingPolicy, make_routing
from backend.routing.reading import RoutingReading

POLICIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cache_prior", {"lambda_": 0.2}),
    ("max_rank", {"m": 32}),
    ("cumulative_threshold", {"p": 0.5}),
)
RULES: tuple[Eviction, ...] = ("lru", "lfu", "belady")


def one_pass(subject: Subject, policy: RoutingPolicy, ids: torch.Tensor) -> tuple[float, Any, RoutingReading]:
    """Return the seconds of one routed forward pass, head included, its logits and its experts."""
    start = time.perf_counter()
    with torch.inference_mode(), subject.routing.applied(policy) as reading:
        logits = subject.loaded.model(input_ids=ids, use_cache=False).logits
    return time.perf_counter() - start, logits, reading


def stepwise(subject: Subject, policy: RoutingPolicy, ids: torch.Tensor) -> tuple[float, Any, RoutingReading]:
    """Return the seconds of decoding token by token, the logits and the experts."""
    cache, steps = None, []
    start = time.perf_counter()
    with torch.inference_mode(), subject.routing.applied(policy) as reading:
        for token in ids[0]:
            output = subject.loaded.model(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    return time.perf_counter() - start, torch.cat(steps, dim=1), reading


def misses(reading: RoutingReading, policy: RoutingPolicy, tokens: int) -> float:
    """Return the miss rate of the first tokens, a cache a layer."""
    missed = used = 0
    for layer in reading.layers.values():
        capacity = policy.capacity(layer.experts, layer.chosen.shape[1])  # type: ignore[attr-defined]
        walk = simulate(layer.trace(), capacity)
        missed += int(walk.misses[:tokens].sum())
        used += int(walk.accesses[:tokens].sum())
    return missed / used


def compare(subject: Subject, ids: torch.Tensor, few: int) -> None:
    """Time each policy both ways on the same tokens."""
    one_pass(subject, make_routing("cache_prior", {}), ids[:, :64])  # compiles the kernels
    plain = time.perf_counter()
    with torch.inference_mode():
        subject.loaded.model(input_ids=ids, use_cache=False)
    plain = time.perf_counter() - plain
    tokens = ids.shape[1]
    print(f"the model without a hook: {tokens / plain:,.0f} tokens/s")
    for name, settings in POLICIES:
        policy = make_routing(name, settings)
        whole, logits, reading = one_pass(subject, policy, ids)
        single, steps, other = stepwise(subject, policy, ids[:, :few])
        differ = sum(
            int((layer.chosen[:few] != other.layers[index].chosen).any(axis=1).sum())
            for index, layer in reading.layers.items()
        )
        ratio = (single / few) / (whole / tokens)
        far = float((logits[:, :few] - steps).abs().max())
        print(
            f"{name} {settings}: one pass {tokens / whole:,.0f} tokens/s ({whole / plain:.2f} × the model "
            f"alone), token by token {few / single:,.1f}, ratio {ratio:.1f}; selections that differ "
            f"{differ} of {few * len(reading.layers):,}; miss rate {misses(reading, policy, few):.4f} and "
            f"{misses(other, policy, few):.4f}; logits within {far:.1e}"
        )


def curves(path: Path) -> None:
    """Time the miss curves of a recorded trace, all sizes, layer by layer."""
    trace = read_route_trace(path)
    layers = [trace.layer(layer) for layer in trace.chosen]
    found: dict[str, MissCurve] = {}
    for _ in range(2):  # the first time compiles
        start = time.perf_counter()
        for rule in RULES:
            found[rule] = total(miss_curve_of(part, rule) for part in layers)
        seconds = time.perf_counter() - start
    shown = ", ".join(f"{rule} {curve.miss_rate(12):.3f}" for rule, curve in found.items())
    print(
        f"{path.name}: {len(layers)} layers of {trace.experts} experts, every size under {len(RULES)} rules "
        f"in {seconds:.3f} s; with 12 slots {shown}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-moe")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--stepwise", type=int, default=128)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    asked = parser.parse_args()
    root = data_root(asked.data_root)
    if root is not None:
        curves(root / "traces" / "qwen.csv")
    laboratory = Laboratory(Home.resolve(asked.home), root, "cpu", asked.threads)
    subject = laboratory.subject(asked.model, "float32")
    if asked.dtype == "float64":
        subject.loaded.model.double()
        subject.loaded.model.set_experts_implementation("eager")
    text = laboratory.text("wikitext2" if root else "prose")
    windows = cut_windows(text, subject.loaded.tokenizer, 1, asked.window)
    compare(subject, windows.ids, asked.stepwise)


if __name__ == "__main__":
    main()
