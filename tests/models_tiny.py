"""Tiny random models of each family, for tests; random weights never appear as results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GATED_FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi3")
UNGATED_FAMILIES = ("gpt2", "opt")
FAMILIES = GATED_FAMILIES + UNGATED_FAMILIES

VOCABULARY = 128

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_EXTRA: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": False},
    "qwen3": {"head_dim": 12},
    "mistral": {"sliding_window": None},
    "gemma": {"head_dim": 12},
    "gemma2": {"head_dim": 12, "query_pre_attn_scalar": 12, "sliding_window": 16},
    "phi3": {"tie_word_embeddings": False},
    "opt": {"ffn_dim": 80, "word_embed_proj_dim": 48},
}


def tiny_config(family: str, **changes: Any) -> Any:
    """Return the configuration of the tiny model of ``family``; ``changes`` override its fields."""
    from transformers import AutoConfig

    if family == "gpt2":
        fields: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "n_embd": 48,
            "n_inner": 80,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 128,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    else:
        fields = _COMMON | _EXTRA[family]
    if family == "opt":
        fields = {key: value for key, value in fields.items() if key not in ("intermediate_size",)}
        fields.pop("num_key_value_heads", None)
    return AutoConfig.for_model(family, **(fields | changes))


def tiny_tokenizer() -> Any:
    """Return a byte-level tokenizer of 128 tokens: three special ones, then single bytes (ASCII first)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    space = "Ġ"  # how a byte-level vocabulary writes it
    alphabet = [space, *(byte for byte in sorted(pre_tokenizers.ByteLevel.alphabet()) if byte != space)]
    specials = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate(specials + alphabet[: VOCABULARY - len(specials)])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def tiny_model(family: str, folder: Path | None = None, seed: int = 0, **changes: Any) -> tuple[Any, Any]:
    """Return a seeded random model of ``family`` (fp32, eval, no gradients) and a tokenizer.

    Args:
        family: One of ``FAMILIES``.
        folder: Where to save both as a Hugging Face folder (safetensors); None saves nothing.
        seed: Seed of the weights; the global random state is left as it was.
        changes: Fields of the configuration to override.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = tiny_config(family, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():  # init std 0.02 makes tiny activations and flat logits; spread them
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(0.0, parameter.shape[-1] ** -0.5)
                elif "norm" not in name and "ln_" not in name:
                    parameter.normal_(0.0, 0.1)
    model.eval().requires_grad_(False)
    model.tie_weights()
    tokenizer = tiny_tokenizer()
    if folder is not None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        assert json.loads((folder / "config.json").read_text())["model_type"] == family
    return model, tokenizer
