"""GGUF to safetensors: the same model, the right tokenizer, complete or not at all."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import UserError
from backend.models import CATALOG, DEFAULT_MODEL
from backend.models import conversion as conversions
from backend.models.catalog import CatalogEntry
from backend.models.conversion import convert, read_manifest
from tests.models_tiny import tiny_model

ENTRY = CATALOG[DEFAULT_MODEL]
TOKENS = ["<pad>", "<s>", "</s>", "Ġ", "ĠĠ", "Ċ", "ĊĊ", *"abc0123456789", "ab", "Ġa"]
MERGES = ["Ġ Ġ", "Ċ Ċ", "a b", "Ġ a"]


def _llama_cpp_rows(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Reorder q or k rows as llama.cpp stores them: halves of each head interleaved."""
    half = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return half.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: Any) -> None:
    """Write a tiny Llama as llama.cpp's converter would, in float32."""
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    padding = [f"<unused{i}>" for i in range(config.vocab_size - len(TOKENS))]
    writer.add_token_list(TOKENS + padding)
    writer.add_token_types([3, 3, 3] + [1] * (config.vocab_size - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}")
    state = model.state_dict()
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    for i in range(config.num_hidden_layers):
        layer, block = f"model.layers.{i}", f"blk.{i}"
        for ours, theirs in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output")):
            names[f"{layer}.self_attn.{ours}_proj"] = f"{block}.attn_{theirs}"
        for part in ("gate", "up", "down"):
            names[f"{layer}.mlp.{part}_proj"] = f"{block}.ffn_{part}"
        names[f"{layer}.input_layernorm"] = f"{block}.attn_norm"
        names[f"{layer}.post_attention_layernorm"] = f"{block}.ffn_norm"
    for ours, theirs in names.items():
        weight = state[f"{ours}.weight"]
        if theirs.endswith("attn_q"):
            weight = _llama_cpp_rows(weight, config.num_attention_heads)
        if theirs.endswith("attn_k"):
            weight = _llama_cpp_rows(weight, config.num_key_value_heads)
        writer.add_tensor(f"{theirs}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def original() -> Any:
    return tiny_model("llama")[0]


@pytest.fixture
def gguf_file(tmp_path: Path, original: Any) -> Path:
    path = tmp_path / "tiny.gguf"
    write_gguf(path, original)
    return path


def test_the_converted_model_is_the_same_model(gguf_file: Path, original: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shares: list[float | None] = []
    folder = tmp_path / "out" / "converted"
    manifest = convert(gguf_file, ENTRY, folder, lambda message, share: shares.append(share))
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(3, 19).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, original(ids).logits)
    assert loaded.dtype == torch.float32
    assert not hasattr(loaded.config, "quantization_config")
    assert read_manifest(folder, ENTRY) == manifest
    assert shares[-1] == 1.0
    assert list(folder.parent.iterdir()) == [folder]

    tokenizer = AutoTokenizer.from_pretrained(folder)
    cut = tokenizer.convert_ids_to_tokens(tokenizer("ab  12\n\n3 a").input_ids)
    assert cut == ["ab", "ĠĠ", "1", "2", "ĊĊ", "3", "Ġa"]  # white space before a digit stays together
    assert tokenizer.model_max_length == 128
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "<s>ab</s>"


def test_a_conversion_that_fails_leaves_the_earlier_one(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out" / "converted"
    manifest = convert(gguf_file, ENTRY, folder)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(conversions, "_save_tokenizer", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(gguf_file, ENTRY, folder)
    assert read_manifest(folder, ENTRY) == manifest
    assert list(folder.parent.iterdir()) == [folder]


def _other_pin(entry: CatalogEntry) -> CatalogEntry:
    return dataclasses.replace(entry, source=dataclasses.replace(entry.source, gguf_sha256="0" * 64))


def test_only_a_whole_and_current_folder_counts_as_converted(gguf_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "converted"
    assert read_manifest(folder, ENTRY) is None
    convert(gguf_file, ENTRY, folder)
    assert read_manifest(folder, ENTRY) is not None
    assert read_manifest(folder, _other_pin(ENTRY)) is None
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert read_manifest(folder, ENTRY) is None
    (folder / "manifest.json").write_text('{"name": "smoll')
    assert read_manifest(folder, ENTRY) is None


def test_a_newer_conversion_version_makes_older_folders_stale(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(gguf_file, ENTRY, tmp_path / "converted")
    monkeypatch.setattr(conversions, "CONVERSION_VERSION", conversions.CONVERSION_VERSION + 1)
    assert read_manifest(tmp_path / "converted", ENTRY) is None


def test_too_little_disk_is_told_before_the_work(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 0)
    monkeypatch.setattr(conversions.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"needs 0\.0 GB .* has 0\.0 GB free; free some space"):
        convert(gguf_file, ENTRY, tmp_path / "out" / "converted")


def test_a_gguf_without_all_weights_is_refused(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversions, "_dequantised", lambda *_: {})
    with pytest.raises(UserError, match="does not fit its model"):
        convert(gguf_file, ENTRY, tmp_path / "out" / "converted")
    assert not (tmp_path / "out" / "converted").exists()
