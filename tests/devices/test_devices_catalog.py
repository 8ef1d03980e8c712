"""Profiles, Flash by read size, shapes from configs, footprints, the roof."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.devices import (
    DEVICES,
    SHAPES,
    ModelShape,
    Precision,
    bandwidth_share,
    find_shape,
    footprint,
    roof_tokens_per_s,
)
from backend.devices.flash import Flash, from_iops
from backend.errors import UserError

UFS = DEVICES["snapdragon-8-gen-3"].flash


def test_the_paper_comes_first_and_is_flat():
    paper = next(iter(DEVICES.values()))
    assert (paper.name, paper.dram_gb_per_s) == ("apple-a18", 60.0)
    assert {paper.flash.gb_per_s(size) for size in (1, 2000, 7200, 1e9)} == {1.0}


@pytest.mark.parametrize("name", list(DEVICES))
def test_every_profile_is_plausible_and_names_its_sources(name: str):
    device = DEVICES[name]
    assert device.name == name
    assert device.dram_gb_per_s > 3 * device.flash.peak_gb_per_s
    assert device.dram_source
    assert device.flash.source
    assert device.source.endswith(".")


def test_ufs_4_at_the_read_sizes_of_llama_3_8b():
    assert UFS.gb_per_s(4096) == pytest.approx(0.45)
    assert UFS.gb_per_s(512 * 1024) == pytest.approx(3.5)
    assert UFS.gb_per_s(7168) == pytest.approx(0.45 * (3.5 / 0.45) ** (math.log(7168 / 4096) / math.log(128)))
    assert UFS.gb_per_s(2048) == pytest.approx(0.45 / 2)  # bound by reads a second
    assert UFS.gb_per_s(1e9) == UFS.peak_gb_per_s == 4.2


@given(st.floats(1, 1e9), st.floats(1, 1e9))
def test_larger_reads_are_never_slower(one: float, other: float):
    small, large = sorted((one, other))
    assert UFS.gb_per_s(small) <= UFS.gb_per_s(large) * (1 + 1e-12)


def test_flash_points_are_checked():
    with pytest.raises(ValueError, match="rising"):
        Flash(((4096, 1.0), (512, 2.0)), 0.0, "")
    assert from_iops(1e9, 0.5, 0.0, "").gb_per_s(4096) == 0.5  # small reads no faster than large ones


def test_other_bandwidths_scale_the_whole_flash_curve():
    changed = DEVICES["snapdragon-8-gen-3"].with_bandwidths(50.0, 2.1)
    assert changed.dram_gb_per_s == 50.0
    assert changed.flash.gb_per_s(4096) == pytest.approx(0.225)
    with pytest.raises(UserError, match="above 0"):
        changed.with_bandwidths(flash_gb_per_s=0.0)
    with pytest.raises(UserError, match="above 0"):
        changed.with_bandwidths(dram_gb_per_s=math.nan)


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'apple-a18'"):
        DEVICES["aple-a18"]
    with pytest.raises(UserError, match="did you mean 'phi-3-medium'"):
        find_shape("phi3-medium")


@pytest.mark.parametrize(
    "family", ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"]
)
@pytest.mark.parametrize("written", ["whole", "differences"])
def test_shapes_agree_with_transformers(family: str, written: str):
    """Also where config.json leaves out what is the family's default."""
    from transformers import AutoConfig

    sizes = {"hidden_size": 640, "intermediate_size": 1000, "num_hidden_layers": 3}
    if family not in ("gemma", "gemma2", "gemma3_text", "qwen3"):
        sizes["num_attention_heads"] = 8  # else the family's own, with its own head_dim
        sizes["num_key_value_heads"] = 2
    config = AutoConfig.for_model(family, **sizes)
    content = config.to_dict() if written == "whole" else {"model_type": family, **sizes}
    if written == "differences":
        for key in ("vocab_size", "num_attention_heads", "num_key_value_heads"):
            if family != "gemma3_text":  # whose published configs lack them
                content[key] = getattr(config, key)
        if family == "qwen2":
            content.setdefault("tie_word_embeddings", config.tie_word_embeddings)
    shape = ModelShape.from_config(content)
    assert shape.hidden_size == 640
    assert shape.neurons == 1000
    assert shape.layers == 3
    assert shape.heads == config.num_attention_heads
    assert shape.kv_heads == config.num_key_value_heads
    assert shape.head_dim == (getattr(config, "head_dim", None) or 640 // config.num_attention_heads)
    assert shape.vocabulary == config.vocab_size
    assert shape.tied == config.tie_word_embeddings


def test_head_dim_that_is_not_d_over_h():
    """Qwen3-0.6B: 16 heads of 128 on 1,024."""
    config = {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
    shape = ModelShape.from_config(config, "qwen3-0.6b")
    assert shape.attention_weights == 28 * (1024 * 2048 + 2 * 1024 * 1024 + 2048 * 1024)
    size = footprint(shape, Precision(), 100)
    assert size.head == 0.0
    assert size.head_read == size.embedding == 151_936 * 1024
    assert size.kv == 2 * 100 * 8 * 128 * 28


def test_a_multimodal_config_gives_its_text_part():
    inner = {"model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    shape = ModelShape.from_config({"model_type": "gemma3", "text_config": inner})
    assert (shape.heads, shape.head_dim, shape.tied) == (8, 256, True)


def test_footprint_formulas_by_a_loop():
    shape = ModelShape("tiny", 6, 10, 2, 3, 1, 4, 50)
    size = footprint(shape, Precision(mlp=4, attention=2, embedding=8, kv=16), 7)
    q = k = v = out = 0
    for _ in range(shape.layers):
        q, k, v, out = q + 6 * 12, k + 6 * 4, v + 6 * 4, out + 12 * 6
    assert size.attention == (q + k + v + out) * 2 / 8
    assert size.mlp == 2 * 3 * 60 / 2
    assert size.kv == 2 * 2 * 7 * 4 * 2
    assert size.static == size.attention + size.kv + 2 * 300


def test_shape_of_a_folder(tmp_path: Path):
    folder = tmp_path / "mine"
    folder.mkdir()
    config = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 30,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shape = find_shape(str(folder))
    assert shape == find_shape(folder / "config.json")
    assert (shape.name, shape.head_dim, shape.kv_heads, shape.tied) == ("mine", 4, 2, False)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(UserError, match="not the config"):
        find_shape(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="can be read"):
        find_shape(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"num_local_experts": 8}, "experts"),
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": "8"}, "hidden_size"),
        ({"num_key_value_heads": 3}, "cannot share"),
        ({"head_dim": 0}, "head_dim"),
    ],
)
def test_wrong_configs_are_refused_in_a_sentence(change: dict[str, object], sentence: str):
    config: dict[str, object] = {
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 30,
    }
    with pytest.raises(UserError, match=sentence):
        ModelShape.from_config(config | change)


def test_the_shapes_with_a_name():
    assert SHAPES["phi-3-medium"].mlp_weights == 3 * 5120 * 17_920 * 40
    assert SHAPES["smollm2-135m"].tied
    for shape in SHAPES.values():
        assert shape.head_dim * shape.heads == shape.hidden_size


def test_the_memory_roof():
    assert roof_tokens_per_s(2e9, 60.0) == pytest.approx(30.0)
    assert bandwidth_share(2e9, 1 / 15, 60.0) == pytest.approx(0.5)
    for wrong in ((0.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)):
        with pytest.raises(UserError, match="roofline"):
            bandwidth_share(*wrong)
