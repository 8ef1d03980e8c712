"""Tiny random mixtures of experts of each family, for tests; random weights never appear as results."""

from __future__ import annotations

from typing import Any

from tests.models_tiny import VOCABULARY

EXPERTS, TOP_K, LAYERS = 8, 4, 3

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 256,
    "num_experts": EXPERTS,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": TOP_K,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_LATENT_ATTENTION = {
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
_GROUPED = {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5, "first_k_dense_replace": 1}

MOE_EXTRA: dict[str, dict[str, Any]] = {
    "mixtral": {"num_experts_per_tok": 2, "sliding_window": None},
    "phimoe": {"num_experts_per_tok": 2, "sliding_window": None, "lm_head_bias": False},
    "qwen2_moe": {"shared_expert_intermediate_size": 32, "norm_topk_prob": False},
    "qwen3_moe": {"norm_topk_prob": True},
    "olmoe": {"norm_topk_prob": False},
    "deepseek_v2": {**_LATENT_ATTENTION, **_GROUPED, "n_routed_experts": EXPERTS, "n_shared_experts": 1,
                    "topk_method": "group_limited_greedy", "norm_topk_prob": True},
    "deepseek_v3": {**_LATENT_ATTENTION, **_GROUPED, "n_routed_experts": EXPERTS, "n_shared_experts": 1,
                    "norm_topk_prob": True},
    "granitemoe": {},
    "gpt_oss": {"sliding_window": 64, "rope_scaling": None},
    "qwen3_next": {"shared_expert_intermediate_size": 32, "norm_topk_prob": True, "num_hidden_layers": 4,
                   "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
                   "linear_value_head_dim": 8, "decoder_sparse_step": 1, "mlp_only_layers": []},
    "glm4_moe": {"n_routed_experts": EXPERTS, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
                 "routed_scaling_factor": 1.5, "first_k_dense_replace": 1, "norm_topk_prob": True},
    "dots1": {"n_routed_experts": EXPERTS, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
              "routed_scaling_factor": 2.0, "first_k_dense_replace": 0, "norm_topk_prob": True},
    "ernie4_5_moe": {"moe_num_experts": EXPERTS, "moe_k": TOP_K, "moe_num_shared_experts": 1,
                     "moe_layer_start_index": 0, "moe_layer_end_index": LAYERS - 1},
    "lfm2_moe": {"num_dense_layers": 1, "norm_topk_prob": True, "use_expert_bias": True,
                 "layer_types": ["conv", "full_attention", "conv"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 1,
              "expert_layer_offset": 0, "use_mamba_kernels": False, "mamba_d_state": 8, "mamba_dt_rank": 4},
    "minimax": {"num_experts_per_tok": 2, "layer_types": ["full_attention"] * LAYERS, "block_size": 16},
    "hunyuan_v1_moe": {"moe_topk": TOP_K},
    "flex_olmo": {"norm_topk_prob": False},
}  # fmt: skip
MOE_FAMILIES = tuple(MOE_EXTRA)
REFUSED_FAMILIES = ("llama4_text", "dbrx")


def tiny_moe(family: str, seed: int = 0, dtype: Any = None, **changes: Any) -> Any:
    """Return a seeded random mixture of experts of ``family``: eval mode, no gradients.

    Args:
        family: One of ``MOE_FAMILIES`` or ``REFUSED_FAMILIES``.
        seed: Seed of the weights; the global random state is left as it was.
        dtype: float32 by default.
        changes: Fields of the configuration to override.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {**_COMMON, **MOE_EXTRA.get(family, {}), **changes}
    if family == "dbrx":
        fields = {"d_model": 48, "n_heads": 4, "n_layers": 2, "vocab_size": VOCABULARY,
                  "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
                  "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4}}  # fmt: skip
    config = AutoConfig.for_model(family, **fields)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # init std 0.02 makes flat routers; spread them, and let biases choose
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2 and "e_score" not in name:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
                elif "bias" in name:
                    parameter.normal_(0.0, 0.1)
            for name, buffer in model.named_buffers():
                if "bias" in name:
                    buffer.normal_(0.0, 0.1)
    model.eval().requires_grad_(False)
    model.tie_weights()
    if dtype == torch.float64:  # grouped_mm knows no doubles
        model.set_experts_implementation("eager")
    return model if dtype is None else model.to(dtype)
