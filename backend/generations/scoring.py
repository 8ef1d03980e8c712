"""Scoring a side's token against the dense model at the same context."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.generations.pieces import decoded

if TYPE_CHECKING:
    from torch import Tensor

TOP = 5
"""Most likely tokens that are kept of each side."""
Top = list[tuple[str, float]]


@dataclass(frozen=True)
class Score:
    """The dense model's view of one token that a side wrote (or was fed).

    Attributes:
        dense_logprob: ``log p_dense(token)``, nats.
        kl: ``KL(dense‖side)`` of the whole distribution at this place, nats.
        dense_rank: The token's rank under dense, 1 for its most likely one.
        top: The dense model's most likely tokens: text and log-probability.
    """

    dense_logprob: float
    kl: float
    dense_rank: int
    top: Top


def compare(dense: Tensor, side: Tensor, tokens: list[int], tokenizer: Any) -> list[Score]:
    """Score tokens by both sides' logits.

    Args:
        dense: The dense model's logits. # [T, V]
        side: The side's, at the same contexts. # [T, V]
        tokens: What stands there. # T
        tokenizer: For the texts of the most likely tokens.
    """
    import torch

    log_d, log_s = dense.double().log_softmax(-1), side.double().log_softmax(-1)
    kl = (log_d.exp() * (log_d - log_s)).nan_to_num(0.0).sum(-1).clamp_min(0)  # 0 · log 0 is 0
    chosen = torch.tensor(tokens, device=log_d.device)[:, None]
    at = log_d.gather(-1, chosen)
    ranks = (log_d > at).sum(-1) + 1
    return [
        Score(float(at[t, 0]), float(kl[t]), int(ranks[t]), top_tokens(log_d[t], tokenizer))
        for t in range(len(tokens))
    ]


def top_tokens(log_p: Tensor, tokenizer: Any) -> Top:
    """Return the most likely tokens. ``log_p``: # [V]"""
    values, ids = log_p.topk(min(TOP, log_p.shape[-1]))
    return [(decoded(tokenizer, [int(i)]), round(float(v), 4)) for v, i in zip(values, ids, strict=True)]
