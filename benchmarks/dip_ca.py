"""DIP-CA in one pass against plain DIP and against token by token: ``python -m benchmarks.dip_ca``.

One pass and plain DIP run interleaved, window by window, over ``--tokens`` tokens; token by token is the
same masked Hugging Face model, fed one token at a time with its key-value cache, over the first
``--stepwise`` tokens of each window (later ones take longer, so the ratio it gives is a lower bound).
Selections are compared too. In float32 a few near-ties fall the other way, since a batched product rounds
unlike a single one, and the caches then go their own ways; ``--dtype float64`` shows that nothing else does.
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
from backend.sparsity import Policy, make_policy


class Masks:
    """Keeps every mask, by layer and site."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, str], list[torch.Tensor]] = {}

    def __call__(self, layer: int, site: str, mask: torch.Tensor, values: torch.Tensor) -> None:
        """Take note of one mask. # [B, T, N]"""
        self.kept.setdefault((layer, site), []).append(mask)

    def differences(self, other: Masks) -> tuple[int, int]:
        """Return how many selections (one a token and hook) differ, and how many there are."""
        differ = total = 0
        for hook, parts in other.kept.items():
            theirs = torch.cat(parts, dim=1)
            ours = torch.cat(self.kept[hook], dim=1)[:, : theirs.shape[1]]
            differ += int((ours != theirs).any(-1).sum())
            total += theirs.shape[1]
        return differ, total


def one_pass(subject: Subject, policy: Policy, ids: torch.Tensor, watch: Any = None) -> tuple[float, Any]:
    """Return the seconds of one masked forward pass, head included, and its logits."""
    start = time.perf_counter()
    with torch.inference_mode(), subject.engine.applied(policy, watch=watch):
        logits = subject.loaded.model(input_ids=ids, use_cache=False).logits
    return time.perf_counter() - start, logits


def stepwise(subject: Subject, policy: Policy, ids: torch.Tensor, watch: Any) -> tuple[float, Any]:
    """Return the seconds of decoding token by token, and the logits."""
    cache, steps = None, []
    start = time.perf_counter()
    with torch.inference_mode(), subject.engine.applied(policy, watch=watch):
        for token in ids[0]:
            output = subject.loaded.model(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    return time.perf_counter() - start, torch.cat(steps, dim=1)


def mean_nll(logits: torch.Tensor, ids: torch.Tensor) -> float:
    """Return the mean negative log-likelihood of the tokens after the first, in nats."""
    return float(torch.nn.functional.cross_entropy(logits[0, :-1].double(), ids[0, 1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home")
    parser.add_argument("--data-root", type=Path, default=data_root())
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--stepwise", type=int, default=256, help="tokens of each window decoded one by one")
    parser.add_argument("--density", type=float, default=0.5)
    parser.add_argument("--gamma", type=float, default=0.2)
    parser.add_argument("--cache-share", type=float, default=0.5)
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    options = parser.parse_args()
    laboratory = Laboratory(Home.resolve(options.home), options.data_root)
    subject = laboratory.subject("smollm2-135m", "float32")
    if options.dtype == "float64":
        subject.loaded.model.double()
    text = laboratory.text("wikitext2" if options.data_root else "prose")
    count = options.tokens // options.window
    ids = cut_windows(text, subject.loaded.tokenizer, count, options.window, None).ids
    dip = make_policy("dip", {"density": options.density})
    aware = make_policy(
        "dip_ca",
        {"density": options.density, "gamma": options.gamma, "cache_share": options.cache_share},
    )
    for policy in (dip, aware):  # warm up torch and the compiled scan
        one_pass(subject, policy, ids[:1, :64])

    plain = cached = steps = 0.0
    differ = selections = 0
    largest = nll_at_once = nll_stepwise = 0.0
    for window in ids.split(1):
        plain += one_pass(subject, dip, window)[0]
        cached += one_pass(subject, aware, window)[0]
        if options.stepwise:
            at_once, one_by_one = Masks(), Masks()
            prefix = window[:, : options.stepwise]
            expected = one_pass(subject, aware, prefix, at_once)[1]
            seconds, logits = stepwise(subject, aware, prefix, one_by_one)
            steps += seconds
            found = at_once.differences(one_by_one)
            differ, selections = differ + found[0], selections + found[1]
            nll_at_once += mean_nll(expected, prefix) / count
            nll_stepwise += mean_nll(logits, prefix) / count
            largest = max(largest, float((logits - expected).abs().max()))
    fed = count * options.window
    print(f"{fed} tokens in windows of {options.window}, {options.dtype}, {torch.get_num_threads()} threads")
    print(f"plain DIP, one pass   {plain:8.2f} s   {1000 * plain / fed:8.3f} ms/token")
    print(f"DIP-CA, one pass      {cached:8.2f} s   {1000 * cached / fed:8.3f} ms/token")
    print(f"DIP-CA over plain DIP {cached / plain:8.2f} ×   (at most 2.5)")
    if options.stepwise:
        each = steps / (count * options.stepwise)
        print(f"token by token        {steps:8.2f} s   {1000 * each:8.3f} ms/token")
        print(f"one pass is faster by {each / (cached / fed):8.1f} ×   (at least 10)")
        print(f"selections that differ {differ} of {selections}; largest difference of logits {largest:.2e}")
        print(f"mean NLL of those tokens: one pass {nll_at_once:.6f}, token by token {nll_stepwise:.6f} nats")


if __name__ == "__main__":
    main()
