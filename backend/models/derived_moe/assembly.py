"""Assembles the derived MoE as a stock ``Qwen2MoeForCausalLM``: the dense model and the small artefact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.models.derived_moe.masked_experts import use_masked_experts
from backend.models.derived_moe.settings import MoEShape

if TYPE_CHECKING:
    from torch import Tensor

_GATE_OF_ZERO = 0.5  # the sigmoid of a shared-expert gate whose weights are zero


def assemble(dense: Any, shape: MoEShape, parts: Mapping[str, Tensor]) -> Any:
    """Return the MoE.

    Everything is the stock class's own arithmetic: the shared expert's gate has zero weights and gives one
    half, so its down projection is doubled; the routed down projections carry the experts' scales s, because
    ``norm_topk_prob=False`` leaves ``w = softmax(z)`` over all N experts unnormalised over the K chosen ones.
    Corrections are folded into the rows.

    Args:
        dense: The Llama it is derived from; its attention, embedding and head are shared with the result, not
            copied.
        shape: Sizes.
        parts: ``neurons`` and, as far as given, ``router``, ``scale``, ``lora.*``, ``norm.*``, ``bias.*``, as
            in :mod:`backend.models.derived_moe.artefacts`. What is absent stays as the dense model has it:
            without a router all experts weigh 1/N, and s = N.

    Raises:
        UserError: The dense model is no Llama without biases, or the parts are another model's.
    """
    import torch
    from transformers import Qwen2MoeForCausalLM

    require_llama(dense)
    _require_shapes(dense, shape, parts)
    state = {
        "model.embed_tokens.weight": dense.model.embed_tokens.weight,
        "model.norm.weight": dense.model.norm.weight,
        "lm_head.weight": dense.lm_head.weight,
    }
    with torch.no_grad():
        for index, layer in enumerate(dense.model.layers):
            own = {name: tensor[index] for name, tensor in parts.items()}
            for name, tensor in _layer_state(layer, shape, own).items():
                state[f"model.layers.{index}.{name}"] = tensor
    config = moe_config(dense.config, shape)
    with torch.device("meta"):
        model = Qwen2MoeForCausalLM(config)
    model.model.rotary_emb = type(model.model.rotary_emb)(
        config=config
    )  # its buffers are computed, not stored
    model.load_state_dict({name: tensor.detach() for name, tensor in state.items()}, assign=True)
    model.tie_weights()
    use_masked_experts(model)
    model.generation_config = dense.generation_config
    return model.eval().requires_grad_(False)


def moe_config(dense: Any, shape: MoEShape) -> Any:
    """Return the Qwen2-MoE configuration of a Llama's with its MLPs cut into experts."""
    from transformers import Qwen2MoeConfig

    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps",
        "use_cache",
        "tie_word_embeddings", "rope_parameters", "pad_token_id", "bos_token_id", "eos_token_id",
    )  # fmt: skip
    return Qwen2MoeConfig(
        **{name: getattr(dense, name) for name in same},
        moe_intermediate_size=shape.expert_size(dense.intermediate_size),
        shared_expert_intermediate_size=shape.shared,
        num_experts=shape.experts,
        num_experts_per_tok=shape.top_k,
        norm_topk_prob=False,
        qkv_bias=True,
        dtype=dense.dtype,
    )


def _layer_state(layer: Any, shape: MoEShape, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one decoder layer's tensors under the names of the stock class, without the layer's prefix."""
    import torch

    attention, gains = layer.self_attn, layer.input_layernorm.weight
    kind = gains.dtype
    gate, up, down = _rows(layer.mlp, own)  # [n, d], [n, d], [d, n] in float32, in the experts' order
    cut, hidden = shape.shared, gate.shape[1]
    scale = own.get("scale", gate.new_full((shape.experts,), float(shape.experts)))  # [N]
    experts = [w[cut:].unflatten(0, (shape.experts, -1)) for w in (gate, up)]  # [N, m, d] each
    routed_down = down[:, cut:].unflatten(1, (shape.experts, -1)).transpose(0, 1)  # [N, d, m]
    state = {
        "input_layernorm.weight": own.get("norm.attention", gains),
        "post_attention_layernorm.weight": own.get("norm.mlp", layer.post_attention_layernorm.weight),
        "self_attn.o_proj.weight": attention.o_proj.weight,
        "mlp.gate.weight": own.get("router", gate.new_zeros(shape.experts, hidden)),
        "mlp.experts.gate_up_proj": torch.cat(experts, dim=1),
        "mlp.experts.down_proj": routed_down * scale[:, None, None],
        "mlp.shared_expert.gate_proj.weight": gate[:cut],
        "mlp.shared_expert.up_proj.weight": up[:cut],
        "mlp.shared_expert.down_proj.weight": down[:, :cut] / _GATE_OF_ZERO,
        "mlp.shared_expert_gate.weight": gate.new_zeros(1, hidden),
    }
    for name in "qkv":
        linear = getattr(attention, f"{name}_proj")
        state[f"self_attn.{name}_proj.weight"] = linear.weight
        state[f"self_attn.{name}_proj.bias"] = own.get(f"bias.{name}", gate.new_zeros(linear.out_features))
    return {name: tensor.to(kind).contiguous() for name, tensor in state.items()}


def _rows(mlp: Any, own: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return gate, up and down with the neurons reordered and the corrections folded in, in float32."""
    order = own["neurons"].long()
    weights = {
        "gate": mlp.gate_proj.weight.float()[order],
        "up": mlp.up_proj.weight.float()[order],
        "down": mlp.down_proj.weight.float()[:, order],
    }
    for name, weight in weights.items():
        if f"lora.{name}_a" in own:
            weights[name] = weight + own[f"lora.{name}_b"].float() @ own[f"lora.{name}_a"].float()
    return weights["gate"], weights["up"], weights["down"]


def require_llama(dense: Any) -> None:
    """Refuse what the Qwen2-MoE container has no place for: anything but a Llama without biases."""
    config = dense.config
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias:
        raise UserError(
            f"A MoE is derived from a Llama without biases, and this is a {config.model_type}; its rows "
            "would not fit the Qwen2-MoE container."
        )


def _require_shapes(dense: Any, shape: MoEShape, parts: Mapping[str, Tensor]) -> None:
    config = dense.config
    layers, neurons = config.num_hidden_layers, config.intermediate_size
    found = tuple(parts["neurons"].shape)
    if found != (layers, neurons):
        raise UserError(
            f"The artefact orders {found[-1]} neurons in {found[0]} layers, and the dense model has "
            f"{neurons} in {layers}: it was derived from another model."
        )
    try:
        shape.expert_size(neurons)
    except ValueError as error:
        raise UserError(f"The artefact does not fit the dense model: {error}.") from error
