"""A Llama-style decoder's weights as the kernels want them: found by structure, checked against the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.decoding.gathered_mlp import activation_kind
from backend.decoding.kernels.linear import Floats
from backend.decoding.matrices import EMPTY, Matrix, MLPMatrices, bias, matrix

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import Anatomy, Attention


class NotLean(Exception):  # noqa: N818
    """The model is not of the kind that the lean step knows; the message says in what."""


@dataclass(frozen=True)
class LeanAttention:
    """One attention block's weights; see :func:`backend.decoding.kernels.attention.attention_step`."""

    norm: Floats
    q: Matrix
    k: Matrix
    v: Matrix
    o: Matrix
    biases: tuple[Floats, Floats, Floats, Floats]
    q_norm: Floats
    k_norm: Floats
    scale: float
    mlp_norm: Floats


@dataclass
class LeanWeights:
    """All weights of one model.

    Attributes:
        anatomy: The model's parts.
        int8: The linear weights are held in 8 bits, as copies; else they are the model's own memory.
        attentions: One a layer.
        head: The head.
        norm: The final norm. # [d]
        embedding: The embedding table. # [V, d]
        epsilon: ε of every norm.
        width: d_h, a head's width.
        window: Tokens that a token can attend to, None for all.
        kinds: Each MLP's activation.
    """

    anatomy: Anatomy
    int8: bool
    attentions: list[LeanAttention]
    head: Matrix
    norm: Floats
    embedding: Floats
    epsilon: float
    width: int
    window: int | None
    kinds: dict[int, int]
    _mlps: dict[bool, dict[int, MLPMatrices]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any, anatomy: Anatomy, *, int8: bool = False) -> LeanWeights:
        """Return the weights of a model.

        Args:
            model: A Hugging Face causal language model.
            anatomy: Its parts.
            int8: Hold linear weights in 8 bits; the model was rounded to them.

        Raises:
            NotLean: It is no float32 model on the CPU, or not built like Llama.
        """
        import torch

        decoder = anatomy.decoder
        weight = anatomy.head.module.weight
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            raise NotLean("it is not in float32 on the CPU")
        if len(anatomy.mlps) < anatomy.layers or len(anatomy.attentions) < anatomy.layers:
            raise NotLean("a layer has no gated MLP or no attention that is known")
        kinds = {layer: activation_kind(mlp) for layer, mlp in anatomy.mlps.items()}
        if None in kinds.values():
            raise NotLean("its activation is not one of the kernels'")
        if not all(hasattr(decoder, name) for name in ("norm", "rotary_emb", "embed_tokens")):
            raise NotLean("it has no final norm, rotary embedding or embedding table where Llama has")
        config = model.config.get_text_config()
        attentions = [
            _attention(decoder.layers[layer], anatomy.attentions[layer], int8)
            for layer in range(anatomy.layers)
        ]
        return cls(
            anatomy=anatomy,
            int8=int8,
            attentions=attentions,
            head=matrix(weight, input_major=False, int8=int8),
            norm=_array(decoder.norm.weight),
            embedding=_array(decoder.embed_tokens.weight),
            epsilon=_epsilon(decoder.norm),
            width=_width(anatomy.attentions[0].module, config),
            window=getattr(config, "sliding_window", None),
            kinds={layer: kind for layer, kind in kinds.items() if kind is not None},
        )

    @property
    def copied_bytes(self) -> int:
        """Bytes held beside the model's own weights: none in float32, the 8-bit copies in int8."""
        if not self.int8:
            return 0
        held = [self.head, *(each for w in self.attentions for each in (w.q, w.k, w.v, w.o))]
        mlps = (each for layers in self._mlps.values() for each in layers.values())
        held += [each for mlp in mlps for each in (mlp.gate, mlp.up, mlp.down)]
        return sum(each.nbytes for each in held)

    def mlps(self, *, input_major: bool) -> dict[int, MLPMatrices]:
        """Return the MLPs' weights by layer; float32 ones must be laid out that way, int8 ones are copied."""
        if not self.int8:
            return self._made(input_major)
        if input_major not in self._mlps:
            self._mlps[input_major] = self._made(input_major)
        return self._mlps[input_major]

    def _made(self, input_major: bool) -> dict[int, MLPMatrices]:
        return {
            layer: MLPMatrices.of(mlp, input_major=input_major, int8=self.int8)
            for layer, mlp in self.anatomy.mlps.items()
        }


def _attention(layer: Any, attention: Attention, int8: bool) -> LeanAttention:
    module = attention.module
    if not all(hasattr(layer, name) for name in ("input_layernorm", "post_attention_layernorm")):
        raise NotLean("its layers have no norms where Llama has")
    if hasattr(module, "qkv_proj"):
        projections = _split(module)
    else:
        projections = [(p.weight, bias(p)) for p in (module.q_proj, module.k_proj, module.v_proj)]
    (q, bq), (k, bk), (v, bv) = projections
    q_norm, k_norm = getattr(module, "q_norm", None), getattr(module, "k_norm", None)
    return LeanAttention(
        norm=_array(layer.input_layernorm.weight),
        q=matrix(q, input_major=False, int8=int8),
        k=matrix(k, input_major=False, int8=int8),
        v=matrix(v, input_major=False, int8=int8),
        o=matrix(attention.out.weight, input_major=False, int8=int8),
        biases=(bq, bk, bv, bias(attention.out)),
        q_norm=EMPTY if q_norm is None else _array(q_norm.weight),
        k_norm=EMPTY if k_norm is None else _array(k_norm.weight),
        scale=float(getattr(module, "scaling", None) or module.head_dim**-0.5),
        mlp_norm=_array(layer.post_attention_layernorm.weight),
    )


def _split(module: Any) -> list[tuple[Tensor, Floats]]:
    """Split a fused projection of queries, keys and values (Phi-3) into row blocks, as views."""
    width, config = module.head_dim, module.config
    sizes = [config.num_attention_heads * width, *[config.num_key_value_heads * width] * 2]
    weights = module.qkv_proj.weight.split(sizes)
    offsets = bias(module.qkv_proj)
    parts = np.split(offsets, np.cumsum(sizes)[:-1]) if offsets.size else [EMPTY] * 3
    return list(zip(weights, parts, strict=True))


def _array(weight: Tensor) -> Floats:
    found: Floats = weight.detach().numpy()
    return found


def _epsilon(norm: Any) -> float:
    found = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if found is None:
        raise NotLean("its norm has no ε")
    return float(found)


def _width(attention: Any, config: Any) -> int:
    return int(getattr(attention, "head_dim", None) or config.hidden_size // config.num_attention_heads)
