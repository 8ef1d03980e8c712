r"""Scoring: NLL, KL(dense‖sparse) and top-1 agreement of every scored token.

KL without the dense logits: with a linear head, ``log p_s(v) = w_v·h_s − lse_s``, so

    Σ_v p_d(v) log p_s(v) = (Σ_v p_d(v) w_v)·h_s − lse_s,

and one vector a token, the head row *expected* under the dense model (as long as a hidden state), is all
that a dense run has to keep. It saves every sparse run one more product with the head, which is a quarter
of a small model's arithmetic. A head with a soft-cap is not linear; then the dense hidden states are kept
and the dense logits made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import Head

CHUNK = 128
"""Tokens scored at once: logits of 128 tokens of a 49k vocabulary take 25 MB."""


@dataclass(frozen=True)
class TokenScores:
    """One value a scored token, in order; NLL and KL in float64.

    Attributes:
        nll: ``−log p(token)``, nats. # [N]
        kl: ``KL(dense‖this)``, nats. # [N]
        agrees: The most likely token is the dense model's. # [N], bool
        top: The most likely token. # [N]
    """

    nll: Tensor
    kl: Tensor
    agrees: Tensor
    top: Tensor


@dataclass(frozen=True)
class DenseScores:
    """What a dense run leaves behind for one window, N scored tokens.

    Attributes:
        targets: The tokens that were predicted. # [N]
        hidden: Dense final hidden states, kept only for a head that is not linear. # [N, d]
        expected_row: Head row expected under the dense model, kept for a linear head. # [N, d]
        expected_bias: Head bias expected under the dense model. # [N]
        negative_entropy: ``Σ p_d log p_d``, nats. # [N]
        top: The dense model's most likely token. # [N]
        nll: Dense ``−log p(token)``, nats. # [N]
    """

    targets: Tensor
    hidden: Tensor | None
    expected_row: Tensor | None
    expected_bias: Tensor
    negative_entropy: Tensor
    top: Tensor
    nll: Tensor


def score_dense(head: Head, hidden: Tensor, targets: Tensor) -> DenseScores:
    """Score the dense model and keep what the sparse runs will be compared with.

    Args:
        head: The head.
        hidden: Final hidden states at the positions that predict. # [N, d]
        targets: The tokens they predict. # [N]
    """
    import torch

    linear = is_linear(head, hidden)
    parts = []
    for states, wanted in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
        logits = head.logits(states)  # [C, V]
        log_p, normaliser, top = _log_probabilities(logits)
        p = log_p.exp()
        if linear:
            row = p @ head.module.weight
            bias = p @ head.module.bias if head.module.bias is not None else torch.zeros(len(p))
            entropy = _cross(head, row, bias, states, normaliser)
        else:
            row, bias = None, torch.zeros(len(p))
            entropy = (p.double() * log_p.double()).sum(-1)
        parts.append((row, bias, entropy, top, -_at(log_p, wanted)))
    rows, biases, entropies, tops, nlls = zip(*parts, strict=True)
    return DenseScores(
        targets=targets,
        hidden=None if linear else hidden,
        expected_row=torch.cat(rows) if linear else None,
        expected_bias=torch.cat(biases),
        negative_entropy=torch.cat(entropies),
        top=torch.cat(tops),
        nll=torch.cat(nlls),
    )


def score_sparse(head: Head, hidden: Tensor, dense: DenseScores) -> TokenScores:
    """Score a sparse run against the dense one of the same window.

    Args:
        head: The head.
        hidden: The sparse run's final hidden states at the positions that predict. # [N, d]
        dense: What the dense run left behind.
    """
    import torch

    nll, kl, agrees, tops = [], [], [], []
    for at, states in enumerate(hidden.split(CHUNK)):
        part = slice(at * CHUNK, at * CHUNK + len(states))
        log_p, normaliser, top = _log_probabilities(head.logits(states))
        if dense.expected_row is not None:
            cross = _cross(head, dense.expected_row[part], dense.expected_bias[part], states, normaliser)
        else:
            assert dense.hidden is not None
            log_d, _, _ = _log_probabilities(head.logits(dense.hidden[part]))
            cross = (log_d.exp().double() * log_p.double()).sum(-1)
        nll.append(-_at(log_p, dense.targets[part]))
        kl.append(dense.negative_entropy[part] - cross)
        agrees.append(top == dense.top[part])
        tops.append(top)
    return TokenScores(torch.cat(nll), torch.cat(kl), torch.cat(agrees), torch.cat(tops))


def is_linear(head: Head, hidden: Tensor) -> bool:
    """Tell whether KL can go by the expected head row: no soft-cap, and fp32, as rounding is not linear."""
    import torch

    return head.softcap is None and hidden.dtype == torch.float32


def _log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-softmax # [C, V], the log of its normaliser # [C], and the argmax # [C]."""
    top_logit, top = logits.max(-1)
    log_p = logits.log_softmax(-1)
    normaliser = top_logit.double() - _at(log_p, top)
    return log_p, normaliser, top


def _cross(head: Head, row: Tensor, bias: Tensor, states: Tensor, normaliser: Tensor) -> Tensor:
    """Return ``Σ_v p_d(v) log p_s(v)`` by the expected head row, in float64: it is a small difference."""
    return head.scale * ((row.double() * states.double()).sum(-1) + bias.double()) - normaliser


def _at(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(-1, index[:, None]).squeeze(-1).double()
