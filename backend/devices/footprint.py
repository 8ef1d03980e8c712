"""Bytes of a model's parts: what has to be in DRAM, what may stay on Flash, what a token reads.

Source: the simulator of Federici et al., arXiv 2412.01380.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.devices.shapes import ModelShape


@dataclass(frozen=True)
class Precision:
    """Bits a value is stored with; byte counts only, the perplexity is of the weights that really ran.

    Attributes:
        mlp: Gate, up and down projections.
        attention: q, k, v and output projections.
        embedding: Embedding table and head.
        kv: KV cache.
    """

    mlp: float = 4
    attention: float = 4
    embedding: float = 8
    kv: float = 8


@dataclass(frozen=True)
class Footprint:
    """Bytes of each part of a model.

    Attributes:
        mlp: All MLPs.
        attention: All attention projections.
        kv: The KV cache of a whole sequence.
        embedding: The embedding table.
        head: The head; 0 when it is the embedding table.
        head_read: What one token reads of the head: all of it, stored apart or not.
        embedding_row: One row of the embedding table.
    """

    mlp: float
    attention: float
    kv: float
    embedding: float
    head: float
    head_read: float
    embedding_row: float

    @property
    def static(self) -> float:
        """Bytes that have to be in DRAM whatever is pruned: everything but the MLPs."""
        return self.attention + self.kv + self.embedding + self.head

    @property
    def total(self) -> float:
        """Bytes of the whole model with its KV cache."""
        return self.mlp + self.static


def footprint(shape: ModelShape, precision: Precision, sequence_tokens: int) -> Footprint:
    """Return the bytes of each part of a model.

    ``mlp 3·d·n·L``, ``attention d·h·d_h·(2+2g)·L``, ``kv(T) 2·T·h·d_h·g·L``, ``embedding, head V·d`` values,
    each times its bytes a value (g = kv_heads/heads).

    Args:
        shape: The model's sizes.
        precision: Bits a value.
        sequence_tokens: T, the tokens that the KV cache has to hold.
    """
    table = shape.embedding_weights * precision.embedding / 8
    return Footprint(
        mlp=shape.mlp_weights * precision.mlp / 8,
        attention=shape.attention_weights * precision.attention / 8,
        kv=2 * sequence_tokens * shape.kv_heads * shape.head_dim * shape.layers * precision.kv / 8,
        embedding=table,
        head=0.0 if shape.tied else table,
        head_read=table,
        embedding_row=table / shape.vocabulary,
    )
