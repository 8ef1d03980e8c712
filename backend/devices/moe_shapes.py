"""Shapes of mixtures of experts: the sizes that decide what a token reads, and what of it can be missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.devices.shapes import local_config
from backend.errors import UserError
from backend.registry import Registry

_N_NAMES = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_K_NAMES = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")


@dataclass(frozen=True)
class MoEShape:
    """The sizes of a decoder whose MLPs are mixtures of gated experts.

    Attributes:
        name: What it is called.
        hidden_size: d, width of the residual stream.
        expert_neurons: n, neurons of one routed expert.
        experts: N, routed experts of a layer.
        experts_per_token: K, of which a token uses.
        moe_layers: Layers with routed experts.
        other_mlp_weights: Weights of shared experts, routers and dense MLPs, of all layers together.
        attention_weights: Weights of all attention projections.
        kv_values: Values that a token adds to the KV cache, in all layers together.
        vocabulary: V, rows of the embedding table.
        tied: The embedding table serves as head too, and is stored once.
        source: Where the sizes come from.
    """

    name: str
    hidden_size: int
    expert_neurons: int
    experts: int
    experts_per_token: int
    moe_layers: int
    other_mlp_weights: int
    attention_weights: int
    kv_values: int
    vocabulary: int
    tied: bool = False
    source: str = ""

    @property
    def expert_weights(self) -> int:
        """Weights of one routed expert: 3·d·n."""
        return 3 * self.hidden_size * self.expert_neurons

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding table, and of the head: V·d each."""
        return self.vocabulary * self.hidden_size

    @property
    def weights(self) -> int:
        """Weights of the whole model, norms and biases left out."""
        routed = self.moe_layers * self.experts * self.expert_weights
        tables = self.embedding_weights * (1 if self.tied else 2)
        return routed + self.other_mlp_weights + self.attention_weights + tables

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "") -> MoEShape:
        """Return the shape of a Hugging Face mixture of experts from its config.json.

        Args:
            config: The parsed file; of a multimodal model the text part is taken.
            name: What to call it; by default ``_name_or_path`` or the model type.

        Raises:
            UserError: A size is missing, or the model has no routed experts.
        """
        text = config.get("text_config")
        sizes: Mapping[str, Any] = text if isinstance(text, Mapping) else config
        name = name or str(config.get("_name_or_path") or sizes.get("model_type") or "model")
        experts = _first(sizes, _N_NAMES)
        if experts is None or experts < 2:
            raise UserError(f"{name} has no routed experts; simulate it with `simulate`.")
        chosen = _first(sizes, _K_NAMES)
        if chosen is None:
            raise UserError(f"The config of {name} does not say how many experts a token uses.")
        hidden, layers = _size(sizes, "hidden_size", name), _size(sizes, "num_hidden_layers", name)
        neurons = _first(sizes, ("moe_intermediate_size",)) or _size(sizes, "intermediate_size", name)
        sparse = _moe_layers(sizes, layers)
        shared = _first(sizes, ("shared_expert_intermediate_size", "shared_intermediate_size")) or (
            neurons * (_first(sizes, ("n_shared_experts", "moe_num_shared_experts")) or 0)
        )
        dense = int(sizes.get("intermediate_size") or 0) if sparse < layers else 0
        others = 3 * hidden * (sparse * shared + (layers - sparse) * dense) + sparse * experts * hidden
        attention, kv = _attention(sizes, hidden, name)
        return cls(
            name=name,
            hidden_size=hidden,
            expert_neurons=neurons,
            experts=experts,
            experts_per_token=chosen,
            moe_layers=sparse,
            other_mlp_weights=others,
            attention_weights=layers * attention,
            kv_values=layers * kv,
            vocabulary=_size(sizes, "vocab_size", name),
            tied=bool(config.get("tie_word_embeddings", sizes.get("tie_word_embeddings", False))),
            source="its config.json",
        )


def _moe_layers(sizes: Mapping[str, Any], layers: int) -> int:
    """Return how many layers have experts: not the first dense ones, nor those a family leaves dense."""
    left_out = set(sizes.get("mlp_only_layers") or ()) | set(
        range(int(sizes.get("first_k_dense_replace") or 0))
    )
    step = int(sizes.get("decoder_sparse_step") or 1)
    return sum(layer not in left_out and (layer + 1) % step == 0 for layer in range(layers))


def _attention(sizes: Mapping[str, Any], hidden: int, name: str) -> tuple[int, int]:
    """Return one layer's attention weights and the values a token adds to its KV cache."""
    heads = _size(sizes, "num_attention_heads", name)
    if latent := sizes.get("kv_lora_rank"):  # multi-head latent attention (DeepSeek-V2): the latent is cached
        plain, rotary = _size(sizes, "qk_nope_head_dim", name), _size(sizes, "qk_rope_head_dim", name)
        value = _size(sizes, "v_head_dim", name)
        rank = sizes.get("q_lora_rank")
        width = heads * (plain + rotary)
        queries = hidden * rank + rank * width if rank else hidden * width
        keys = hidden * (latent + rotary) + latent * heads * (plain + value)
        return queries + keys + heads * value * hidden, latent + rotary
    groups = int(sizes.get("num_key_value_heads") or heads)
    width = int(sizes.get("head_dim") or hidden // heads)
    return 2 * hidden * width * (heads + groups), 2 * groups * width


def _first(sizes: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    found = (sizes.get(name) for name in names)
    return next((int(value) for value in found if isinstance(value, int) and value > 0), None)


def _size(sizes: Mapping[str, Any], key: str, name: str) -> int:
    value = sizes.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"The config of {name} has no usable {key}; it cannot be simulated.")
    return value


MOE_SHAPES: Registry[MoEShape] = Registry("mixture of experts")
"""Mixtures with a name; any other comes from a config.json."""


def _register() -> None:
    common = {"hidden_size": 2048, "num_attention_heads": 16}
    large = {
        "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_experts_per_tok": 2,
        "num_hidden_layers": 32,
    }  # fmt: skip
    derived = {
        "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3, "num_hidden_layers": 30,
        "num_experts": 128, "vocab_size": 49_152, "tie_word_embeddings": True,
    }  # fmt: skip
    configs: dict[str, dict[str, Any]] = {
        "smollm2-moe": {
            **derived, "num_experts_per_tok": 32, "moe_intermediate_size": 6,
            "shared_expert_intermediate_size": 768,
        },
        "smollm2-moe-sparse": {
            **derived, "num_experts_per_tok": 30, "moe_intermediate_size": 7,
            "shared_expert_intermediate_size": 640,
        },
        "olmoe-1b-7b": {
            **common, "num_hidden_layers": 16, "num_experts": 64, "num_experts_per_tok": 8,
            "intermediate_size": 1024, "vocab_size": 50_304,
        },
        "qwen1.5-moe-a2.7b": {
            **common, "num_hidden_layers": 24, "num_experts": 60, "num_experts_per_tok": 4,
            "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "vocab_size": 151_936,
        },
        "deepseek-v2-lite": {
            **common, "num_hidden_layers": 27, "first_k_dense_replace": 1, "n_routed_experts": 64,
            "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "n_shared_experts": 2,
            "intermediate_size": 10_944, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
            "v_head_dim": 128, "vocab_size": 102_400,
        },
        "mixtral-8x7b": {
            **large, "num_local_experts": 8, "intermediate_size": 14_336, "vocab_size": 32_000,
        },
        "phi-3.5-moe": {**large, "num_local_experts": 16, "intermediate_size": 6400, "vocab_size": 32_064},
        "qwen3-30b-a3b": {
            "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
            "num_hidden_layers": 48, "num_experts": 128, "num_experts_per_tok": 8,
            "moe_intermediate_size": 768, "vocab_size": 151_936,
        },
    }  # fmt: skip
    for name, config in configs.items():
        MOE_SHAPES.add(name, MoEShape.from_config(config, name))


_register()


def find_moe_shape(named: str | Path) -> MoEShape:
    """Return the mixture called ``named``, or that of a model folder or config.json on this machine.

    Raises:
        UserError: There is no such shape or file, it cannot be read, or it is no mixture of experts.
    """
    found = None if str(named) in MOE_SHAPES else local_config(named)
    return MOE_SHAPES[str(named)] if found is None else MoEShape.from_config(found[0], name=found[1])
