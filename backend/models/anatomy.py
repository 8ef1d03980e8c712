"""Anatomy: finds the gated MLPs, the attention projections and the head of any Hugging Face decoder.

A gated MLP computes ``y = W_d (act(W_g x) ⊙ (W_u x))`` (SwiGLU, GeGLU). Modules are found by their shape
and names, then *checked*: each must reproduce its own output from that formula on random input, so a
family that does something else (activation sparsity, clamping) is refused rather than mis-measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from backend.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

ACTIVATION_NAMES = ("act_fn", "activation_fn", "act")
MLP_NAMES = ("mlp", "feed_forward")
ATTENTION_NAMES = ("self_attn", "attention", "attn")
ATTENTION_IN_NAMES = ("q_proj", "k_proj", "v_proj", "qkv_proj")
ATTENTION_OUT_NAMES = ("o_proj", "out_proj", "dense")


@dataclass(frozen=True)
class GatedMLP:
    """One gated MLP: hidden size d, n neurons.

    Attributes:
        layer: Index of its decoder layer.
        module: The module whose ``forward`` computes it.
        activation: ``act`` of the formula.
        fused: gate and up are one projection, gate first (Phi-3).
    """

    layer: int
    module: Any
    activation: Callable[[Tensor], Tensor]
    fused: bool

    @cached_property
    def hidden_size(self) -> int:
        """d: width of the MLP's input and output."""
        return int(self.module.down_proj.out_features)

    @cached_property
    def neurons(self) -> int:
        """n: width between the projections."""
        return int(self.module.down_proj.in_features)

    @property
    def weights(self) -> int:
        """Number of weights of the three projections: 3·d·n (biases are counted with the rest)."""
        return 3 * self.hidden_size * self.neurons

    @property
    def gate_weight(self) -> Tensor:
        """W_g, a view. # [n, d]"""
        weight: Tensor = (
            self.module.gate_up_proj.weight[: self.neurons] if self.fused else self.module.gate_proj.weight
        )
        return weight

    @property
    def up_weight(self) -> Tensor:
        """W_u, a view. # [n, d]"""
        weight: Tensor = (
            self.module.gate_up_proj.weight[self.neurons :] if self.fused else self.module.up_proj.weight
        )
        return weight

    @property
    def down_weight(self) -> Tensor:
        """W_d, a view. # [d, n]"""
        weight: Tensor = self.module.down_proj.weight
        return weight

    @cached_property
    def down_column_norms(self) -> Tensor:
        """``‖W_d[:, i]‖₂`` of each neuron, in fp32. # [n]"""
        norms: Tensor = self.down_weight.detach().float().norm(dim=0)
        return norms

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``(W_g x, W_u x)`` by the model's own modules, so that nothing is rounded otherwise.

        Args:
            x: # [..., d]

        Returns:
            Both projections. # [..., n]
        """
        if self.fused:
            gate, up = self.module.gate_up_proj(x).chunk(2, dim=-1)
            return gate, up
        return self.module.gate_proj(x), self.module.up_proj(x)

    def down(self, neurons: Tensor) -> Tensor:
        """Return ``W_d neurons``. # [..., n] → [..., d]"""
        output: Tensor = self.module.down_proj(neurons)
        return output


@dataclass(frozen=True)
class Attention:
    """One layer's attention projections, as far as sparsity is concerned.

    Attributes:
        layer: Index of its decoder layer.
        module: The attention module.
        out: The output projection.
        in_weights: Weights of the q, k and v projections together.
        out_weights: Weights of the output projection.
        heads: H, the number of query heads.
    """

    layer: int
    module: Any
    out: Any
    in_weights: int
    out_weights: int
    heads: int

    @property
    def head_size(self) -> int:
        """d_h: width of one head's output."""
        return int(self.out.in_features) // self.heads

    @property
    def query_weights(self) -> int:
        """Weights of the query projection: from d to H·d_h, as many as the output projection's back."""
        return self.out_weights


@dataclass(frozen=True)
class Head:
    """From final hidden states to logits: ``softcap(scale · (W h + b))``.

    Attributes:
        module: The linear head.
        scale: Factor on the logits (1 for most families).
        softcap: ``c`` of ``c·tanh(logits/c)``, None for most families.
    """

    module: Any
    scale: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """Return fp32 logits. # [N, d] → [N, V]"""
        return self.finish(self.module(hidden).float())

    def finish(self, logits: Tensor) -> Tensor:
        """Return logits from the linear head's own output: scaled and soft-capped. # [..., V]"""
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * (logits / self.softcap).tanh()
        return logits


@dataclass(frozen=True)
class Anatomy:
    """What the engine needs to know of a model.

    Attributes:
        decoder: The module that maps token ids to final hidden states.
        head: The head.
        layers: Number of decoder layers.
        mlps: Layer index → gated MLP, for the layers that have one.
        attentions: Layer index → attention projections, for the layers where they were found.
        weights_per_token: Weights that a dense token reads: everything but the embedding table, of which
            it reads one row (a tied table is read whole, as the head).
    """

    decoder: Any
    head: Head
    layers: int
    mlps: dict[int, GatedMLP]
    attentions: dict[int, Attention]
    weights_per_token: int

    @property
    def mlp_weights(self) -> int:
        """Weights of all gated MLPs."""
        return sum(mlp.weights for mlp in self.mlps.values())


def find_anatomy(model: Any) -> Anatomy:
    """Find the gated MLPs, attention projections and head of a decoder.

    Args:
        model: A Hugging Face causal language model.

    Raises:
        UserError: It is no decoder with a linear head, or none of its layers has a gated MLP.
    """
    family = type(model).__name__
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers = getattr(decoder, "layers", None)
    _refuse_experts(family, layers)
    head = find_head(model)
    mlps = {}
    attentions = {}
    for index, layer in enumerate(layers if layers is not None else []):
        if (mlp := _gated_mlp(index, layer)) is not None:
            mlps[index] = mlp
        if (attention := _attention(index, layer, model.config)) is not None:
            attentions[index] = attention
    if decoder is None or not mlps:
        raise UserError(
            f"{family} has no gated MLPs (gate, up and down projections), which every method here prunes; "
            "use a model of the Llama, Qwen, Mistral, Gemma or Phi-3 kind."
        )
    return Anatomy(
        decoder=decoder,
        head=head,
        layers=len(layers or ()),
        mlps=mlps,
        attentions=attentions,
        weights_per_token=_weights_per_token(model, head.module),
    )


def has_experts(layer: Any) -> bool:
    """Tell whether a decoder layer is a mixture: it owns experts, fused in 3-D parameters or one by one."""
    return any(hasattr(module, "experts") for module in layer.modules())


def _refuse_experts(family: str, layers: Any) -> None:
    if any(has_experts(layer) for layer in layers or ()):
        raise UserError(
            f"{family} is a mixture of experts: what a token reads is decided by its routers, so take a "
            "routing policy (original, cache_prior, …); mask policies are for dense models."
        )


def _gated_mlp(index: int, layer: Any) -> GatedMLP | None:
    module = _child(layer, MLP_NAMES)
    activation = next(
        (getattr(module, n) for n in ACTIVATION_NAMES if callable(getattr(module, n, None))), None
    )
    if module is None or activation is None or not _linear(getattr(module, "down_proj", None)):
        return None
    fused = _linear(getattr(module, "gate_up_proj", None))
    if not fused and not all(_linear(getattr(module, name, None)) for name in ("gate_proj", "up_proj")):
        return None
    mlp = GatedMLP(index, module, activation, fused)
    return mlp if _follows_formula(mlp) else None


def _follows_formula(mlp: GatedMLP) -> bool:
    import torch

    weight = mlp.down_weight
    if weight.is_meta:
        return True
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, mlp.hidden_size, generator=generator).to(weight.device, weight.dtype)
    with torch.inference_mode():
        expected = mlp.module(x)
        gate, up = mlp.project(x)
        got = mlp.down(mlp.activation(gate) * up)
    return isinstance(expected, torch.Tensor) and torch.allclose(got, expected, rtol=1e-2, atol=1e-5)


def _attention(index: int, layer: Any, config: Any) -> Attention | None:
    module = _child(layer, ATTENTION_NAMES)
    out = _child(module, ATTENTION_OUT_NAMES) if module is not None else None
    inputs = [getattr(module, name) for name in ATTENTION_IN_NAMES if _linear(getattr(module, name, None))]
    if module is None or out is None or not inputs or not _linear(out):
        return None
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = int(getattr(text, "num_attention_heads", None) or 1)
    return Attention(index, module, out, sum(p.weight.numel() for p in inputs), out.weight.numel(), heads)


def find_head(model: Any) -> Head:
    """Find the head of a causal language model, and check that it makes the model's own logits.

    Raises:
        UserError: There is none, or logits are made in a way that is not known here.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise UserError(f"{type(model).__name__} has no language-model head, so its tokens cannot be scored.")
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    divisor = float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    found = Head(head, scale / divisor, None if softcap is None else float(softcap))
    _check_head(model, found)
    return found


def _check_head(model: Any, head: Head) -> None:
    import torch

    if head.module.weight.is_meta:
        return
    ids = torch.arange(1, 5, device=head.module.weight.device)[None]
    with torch.inference_mode():
        expected = model(input_ids=ids, use_cache=False).logits.float()
        got = head.logits(model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state)
    if not torch.allclose(got, expected, rtol=1e-2, atol=1e-3):
        raise UserError(
            f"{type(model).__name__} makes its logits from the final hidden states in a way that is not "
            "known here, so its perplexity would be wrong; please report the model's name."
        )


def _weights_per_token(model: Any, head: Any) -> int:
    embedding = model.get_input_embeddings()
    total: int = sum(parameter.numel() for parameter in model.parameters())
    tied = embedding.weight is head.weight
    table = int(embedding.weight.numel())
    row = int(embedding.weight.shape[-1])
    return total + row if tied else total - table + row


def _child(module: Any, names: tuple[str, ...]) -> Any:
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _linear(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.dim() == 2 and hasattr(module, "in_features")
