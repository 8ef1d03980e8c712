"""What attribution costs: one backward pass for all layers, and for all positions of a window.

    python -m benchmarks.attribution --threads 1

1. One position, all layers: a forward and one backward pass, beside the authors' scheme (a forward and a
   backward pass for each layer), both in units of a plain forward pass.
2. Every position of a window at once (own-token attention) beside one forward and backward pass a position;
   the gradients are compared. ``--sample`` positions are run singly, and their time is scaled to the window.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from backend.home import Home, data_root
from backend.models.anatomy import find_anatomy
from backend.models.loading import load_model
from backend.sparsity.dense_pass import DensePass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--sample", type=int, default=16, help="positions run singly")
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    from backend.evaluation.texts import load_text

    torch.set_num_threads(asked.threads)
    loaded = load_model(asked.model, Home.resolve(asked.home), dtype="float32", device="cpu")
    root = data_root(asked.data_root)
    text = load_text("wikitext2" if root else "prose", root)
    ids = torch.tensor([loaded.tokenizer(text.content[:20_000])["input_ids"][: asked.window]])
    one_position(loaded.model, ids, asked.repeats)
    every_position(loaded.model, ids, asked.sample, asked.repeats)


def one_position(model: Any, ids: torch.Tensor, repeats: int) -> None:
    """Time attribution of the last position of a 64-token sequence."""
    anatomy = find_anatomy(model)
    short = ids[:, :64]
    modules = [mlp.module.down_proj for mlp in anatomy.mlps.values()]
    modules += [attention.out for attention in anatomy.attentions.values()]

    def forward() -> None:
        with torch.no_grad():
            model(input_ids=short, use_cache=False, logits_to_keep=1)

    def backward(hooked: list[Any]) -> None:
        inputs: list[torch.Tensor] = []

        def keep(_module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            inputs.append(args[0] if args[0].requires_grad else args[0].detach().requires_grad_())
            return (inputs[-1],)

        handles = [module.register_forward_pre_hook(keep) for module in hooked]
        with torch.enable_grad():
            logits = model(input_ids=short, use_cache=False, logits_to_keep=1).logits[0, -1]
            torch.autograd.grad(logits.log_softmax(-1).max(), inputs)
        for handle in handles:
            handle.remove()

    def layer_by_layer() -> None:
        for module, other in zip(modules[: anatomy.layers], modules[anatomy.layers :], strict=True):
            backward([module, other])

    plain = median(forward, repeats)
    once = median(lambda: backward(modules), repeats)
    authors = median(layer_by_layer, 1)
    print(f"forward, 64 tokens            {1e3 * plain:8.0f} ms")
    print(f"all layers, one backward pass {1e3 * once:8.0f} ms  {once / plain:5.1f} forwards")
    print(f"one backward pass a layer     {1e3 * authors:8.0f} ms  {authors / plain:5.1f} forwards")


def every_position(model: Any, ids: torch.Tensor, sample: int, repeats: int) -> None:
    """Time and check attribution of every position of a window."""
    anatomy = find_anatomy(model)
    window = ids.shape[1]
    at_once = median(lambda: DensePass(model, anatomy, ids).gradients("next"), min(repeats, 3))
    together = DensePass(model, anatomy, ids).gradients("next")
    places = [round((place + 0.5) * (window - 1) / sample) for place in range(sample)]
    seconds, worst = [], 0.0
    for position in places:
        with torch.no_grad():  # kept from the position before, so not timed
            cache = model(input_ids=ids[:, :position], use_cache=True, logits_to_keep=1).past_key_values
        started = time.perf_counter()
        single = singly(model, anatomy, ids, position, cache)
        seconds.append(time.perf_counter() - started)
        for layer, gradient in single.items():
            difference = float((together.neurons[layer][0, position] - gradient).abs().max())
            worst = max(worst, difference / float(gradient.abs().max()))
    total = statistics.fmean(seconds) * window
    print(f"{window} positions in one pass     {at_once:8.1f} s")
    print(f"{window} single-token backwards    {total:8.1f} s  (from {sample} of them)")
    print(f"faster by a factor of         {total / at_once:8.0f}")
    print(f"largest relative difference   {worst:8.1e}")


def singly(model: Any, anatomy: Any, ids: torch.Tensor, position: int, cache: Any) -> dict[int, torch.Tensor]:
    """Return one position's gradients by plain autograd over a detached KV cache of what precedes it."""
    inputs: dict[int, torch.Tensor] = {}

    def hook(layer: int) -> Callable[..., tuple[torch.Tensor, ...]]:
        def keep(_module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            inputs[layer] = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            return (inputs[layer],)

        return keep

    handles = [m.module.down_proj.register_forward_pre_hook(hook(layer)) for layer, m in anatomy.mlps.items()]
    with torch.enable_grad():
        output = model(input_ids=ids[:, position : position + 1], past_key_values=cache, use_cache=True)
        score = output.logits[0, -1].log_softmax(-1)[ids[0, position + 1]]
        found = torch.autograd.grad(score, list(inputs.values()))
    for handle in handles:
        handle.remove()
    return {layer: g[0, -1] for layer, g in zip(inputs, found, strict=True)}


def median(run: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a run, after one that is not counted."""
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
