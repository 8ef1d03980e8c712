r"""Own-token attention: one backward pass gives every position the gradient of its own prediction alone.

For position t the wanted gradient is ``∂F_t/∂x_t``. A backward pass of ``Σ_t F_t`` through ordinary attention
adds what later tokens owe to x_t through its key and value. Here keys and values reach other positions
detached; a position's own stay attached:

    S = q·sg(k)ᵀ + diag(q·(k − sg(k))),   O = P·sg(v) + diag(P)·(v − sg(v)),

with sg the stop-gradient. Both added terms are exactly zero, so the forward pass is eager attention's.
Checked in the tests against one plain backward pass a position.

For a batch of changed copies of one sequence, other positions' keys and values can be those of the first row,
which is unchanged: then each position of a copy stands alone with its change, in the first row's context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backend.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

NAME = "own_token"
BESIDE_FIRST = "own_token_beside_first"


@contextmanager
def own_token_attention(model: Any, name: str = NAME) -> Iterator[None]:
    """Give a model own-token attention for the time of a ``with`` block.

    Args:
        model: A Hugging Face causal language model.
        name: ``NAME``, or ``BESIDE_FIRST``: every row's context is the first row's.

    Raises:
        UserError: The family's attention cannot be exchanged.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(name, _attend if name == NAME else _attend_beside_first)
    AttentionMaskInterface.register(name, eager_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise UserError(
            f"{type(model).__name__} does not let its attention be exchanged, so gradients of single tokens "
            "cannot be had in one pass; use a model of the Llama, Qwen, Mistral, Gemma or Phi-3 kind."
        )
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    beside_first: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attend with keys and values detached off the diagonal; query heads share keys by groups (GQA).

    Args:
        module: The attention module.
        query: # [B, H, T, d_h]
        key: # [B, H_kv, T, d_h]
        value: # [B, H_kv, T, d_h]
        attention_mask: Added to the scores. # [B or 1, 1, T, T]
        scaling: Factor on the scores, by default 1/√d_h.
        dropout: Not applied: models are in eval mode.
        softcap: ``c`` of ``c·tanh(scores/c)``.
        beside_first: Other positions' keys and values are the first row's.
        kwargs: What else the family passes on.

    Returns:
        The heads' outputs # [B, T, H, d_h], and the attention's probabilities.
    """
    import torch

    if kwargs.get("s_aux") is not None:
        raise UserError(f"{type(module).__name__} has attention sinks, which attribution does not know.")
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))  # [B, H, T, d_h]
    still_key, still_value = key.detach(), value.detach()
    if beside_first:
        still_key, still_value = still_key[:1], still_value[:1]
    scores = query @ still_key.transpose(-1, -2)  # [B, H, T, T]
    scores = scores + torch.diag_embed((query * (key - still_key)).sum(-1))
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * (scores / softcap).tanh()
    if attention_mask is not None:
        scores = scores + attention_mask
    shares = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    own = shares.diagonal(dim1=-2, dim2=-1)[..., None]  # [B, H, T, 1]
    mixed = shares @ still_value + own * (value - still_value)  # [B, H, T, d_h]
    return mixed.transpose(1, 2).contiguous(), shares


def _attend_beside_first(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Attend to the first row's keys and values but at the own position; else as :func:`_attend`."""
    return _attend(module, query, key, value, attention_mask, beside_first=True, **kwargs)
