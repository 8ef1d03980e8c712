"""What the finished MoE is worth: perplexity beside the dense model's, and how its routers are used.

Window by window, one JSON line each, so an interrupted evaluation goes on. The text is an evaluation text,
never one that the MoE was trained on.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.evaluation.scoring import score_dense, score_sparse
from backend.evaluation.statistics import estimate
from backend.evaluation.windows import Windows
from backend.models.anatomy import Head
from backend.models.wheel import Progress, silent

if TYPE_CHECKING:
    from torch import Tensor


def score_windows(
    dense: Any, moe: Any, windows: Windows, file: Path, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Score the windows that ``file`` does not hold yet and return all of them.

    Args:
        dense: The dense model.
        moe: The assembled ``Qwen2MoeForCausalLM``.
        windows: Windows of the evaluation text.
        file: JSON lines, appended to.
        progress: Called with messages and shares.
    """
    import torch

    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for index in range(len(done), len(windows)):
        with torch.inference_mode():
            done.append(_score(dense, moe, windows.ids[index], windows.first_scored[index]))
        with file.open("a") as lines:
            lines.write(json.dumps(done[-1]) + "\n")
        progress("Evaluating windows", (index + 1) / len(windows))
    return done


def summary(windows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the scored windows as one record: perplexities, paired differences, routing.

    ``entropy_nats`` and ``chosen_mass`` are means over tokens, one number a layer; ``load`` is the share of a
    layer's tokens that choose each expert (K/N on average). # [L], [L], [L][N]
    """
    import numpy as np

    counts = [window["tokens"] for window in windows]
    found = {
        name: estimate([window[name] for window in windows], counts)
        for name in ("dense_nll", "nll", "delta_nll", "kl", "agreement")
    }
    load = np.mean([window["load"] for window in windows], axis=0)
    nll, dense = found["nll"].value, found["dense_nll"].value
    return {
        "windows": len(windows),
        "scored_tokens": sum(counts),
        "dense_perplexity": round(math.exp(dense), 4),
        "perplexity": round(math.exp(nll), 4),
        "first_windows_perplexity": round(math.exp(_first_nll(windows)), 4),
        "ratio": round(math.exp(nll - dense), 4),
        **{
            key: round(number, 5)
            for name in ("delta_nll", "kl", "agreement")
            for key, number in ((name, found[name].value), (f"{name}_stderr", found[name].stderr or 0.0))
        },
        "entropy_nats": np.mean([window["entropy"] for window in windows], axis=0).round(3).tolist(),
        "chosen_mass": np.mean([window["chosen_mass"] for window in windows], axis=0).round(3).tolist(),
        "load": load.round(4).tolist(),
    }


def _first_nll(windows: list[dict[str, Any]]) -> float:
    """Return the mean NLL of the first two windows, which a test can afford to measure again."""
    first = windows[:2]
    return estimate([window["nll"] for window in first], [window["tokens"] for window in first]).value


def _score(dense: Any, moe: Any, ids: Tensor, first: int) -> dict[str, Any]:
    targets = ids[first:]
    own, routing = _hidden_and_routing(moe, ids)
    states = dense.model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
    reference = score_dense(Head(dense.lm_head), states[first - 1 : -1], targets)
    scores = score_sparse(Head(moe.lm_head), own[first - 1 : -1], reference)
    return {
        "tokens": len(targets),
        "dense_nll": float(reference.nll.mean()),
        "nll": float(scores.nll.mean()),
        "delta_nll": float((scores.nll - reference.nll).mean()),
        "kl": float(scores.kl.mean()),
        "agreement": float(scores.agrees.double().mean()),
        **routing,
    }


def _hidden_and_routing(moe: Any, ids: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """Return the final hidden states # [W, d] and each layer's routing statistics."""
    import torch

    entropy, mass, load = [], [], []

    def listen(router: Any, _inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        logits, weights, chosen = output
        log_p = logits.float().log_softmax(dim=-1)
        entropy.append(float(-(log_p.exp() * log_p).sum(dim=-1).mean()))
        mass.append(float(weights.sum(dim=-1).mean()))
        counts = torch.bincount(chosen.flatten(), minlength=router.num_experts)
        load.append((counts / len(logits)).tolist())

    hooks = [layer.mlp.gate.register_forward_hook(listen) for layer in moe.model.layers]
    try:
        states: Tensor = moe.model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
    finally:
        for hook in hooks:
            hook.remove()
    return states, {"entropy": entropy, "chosen_mass": mass, "load": load}
