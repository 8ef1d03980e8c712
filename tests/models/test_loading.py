"""Loading: the same model back, refused with a sentence before it can hurt, and quick when it is warm."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.errors import UserError
from backend.home import Home
from backend.models import CATALOG, DEFAULT_MODEL, loading
from backend.models.loading import free_memory, load_model, weight_bytes
from tests.models_tiny import FAMILIES, tiny_model

IDS = torch.arange(4, 20).unsqueeze(0)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_model("llama", folder)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def copy(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "copy"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_as_it_was_saved(
    family: str, home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    original, _ = tiny_model(family, tmp_path / family)
    capfd.readouterr()
    loaded = load_model(str(tmp_path / family), home)
    assert capfd.readouterr() == ("", "")  # no bars, no warnings
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(IDS).logits, original(IDS).logits)
    assert loaded.name == family
    assert loaded.config.model_type == family
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.decode(loaded.tokenizer("hello world").input_ids) == "hello world"
    # Gemma 2 caps its attention scores, which sdpa would leave out.
    assert loaded.config._attn_implementation == ("eager" if family == "gemma2" else "sdpa")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_dtype_is_the_one_asked_for(dtype: str, llama: Path, home: Home) -> None:
    loaded = load_model(str(llama), home, dtype=dtype, device="auto")
    assert loaded.model.dtype == getattr(torch, dtype)
    assert loaded.dtype == dtype
    assert loaded.device == loaded.model.device.type
    assert loaded.load_seconds > 0


def test_the_bytes_needed_are_those_of_the_parameters(llama: Path) -> None:
    count = sum(parameter.numel() for parameter in tiny_model("llama")[0].parameters())
    assert weight_bytes(llama, "float32") == 4 * count
    assert weight_bytes(llama, "bfloat16") == 2 * count


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    llama: Path, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_load", None)  # loading would be a TypeError
    monkeypatch.setattr(loading, "weight_bytes", lambda folder, dtype: loading.DTYPE_BYTES[dtype] * 10e9)
    monkeypatch.setattr(loading, "free_memory", lambda device: 30e9)
    with pytest.raises(UserError) as caught:
        load_model(str(llama), home)
    assert str(caught.value) == (
        "tiny-llama in float32 needs about 46.3 GB of memory and 30.0 GB are free; "
        "load it as bfloat16 (23.3 GB) or free some memory."
    )
    monkeypatch.setattr(loading, "free_memory", lambda device: 1e9)
    with pytest.raises(UserError, match=r"1\.0 GB are free; take a smaller model or free some memory"):
        load_model(str(llama), home)


def test_a_container_s_limit_counts_as_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("2000000000\n")
    (tmp_path / "memory.current").write_text("1500000000\n")
    (tmp_path / "memory.stat").write_text("anon 1000000000\ninactive_file 400000000\n")
    assert loading._container_room(tmp_path) == 900e6
    (tmp_path / "memory.max").write_text("max\n")
    assert loading._container_room(tmp_path) == float("inf")
    assert 0 < free_memory("cpu") < 1e14


def test_unknown_dtypes_and_devices_are_sentences(llama: Path, home: Home) -> None:
    with pytest.raises(UserError, match=r"no dtype 'floot32'; did you mean 'float32'"):
        load_model(str(llama), home, dtype="floot32")
    with pytest.raises(UserError, match=r"no device 'gpu'; "):
        load_model(str(llama), home, device="gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_an_absent_device_names_those_present(llama: Path, home: Home) -> None:
    with pytest.raises(UserError, match=r"PyTorch sees no cuda device here; use one of: .*cpu, or auto"):
        load_model(str(llama), home, device="cuda")


def test_weights_with_holes_are_refused_not_filled_with_random_numbers(copy: Path, home: Home) -> None:
    edit_config(copy, num_hidden_layers=4)
    with pytest.raises(
        UserError, match=r"lack 9 of the weights that its config.json asks for \(model\.layers\.3"
    ):
        load_model(str(copy), home)


def test_weights_of_another_width_are_refused(copy: Path, home: Home) -> None:
    edit_config(copy, intermediate_size=96)
    with pytest.raises(UserError, match=r"lack 9 of the weights .* mixes two models"):
        load_model(str(copy), home)


def test_a_quantised_model_is_refused(copy: Path, home: Home) -> None:
    edit_config(copy, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(UserError, match=r"stored quantised \(gptq\).* unquantised release"):
        load_model(str(copy), home)


@pytest.mark.parametrize("kind", ["t5", "no-such-architecture"])
def test_what_is_no_causal_language_model_is_refused(kind: str, copy: Path, home: Home) -> None:
    edit_config(copy, model_type=kind, architectures=[])
    with pytest.raises(UserError, match="cannot load copy as a causal language model"):
        load_model(str(copy), home)


def test_code_that_comes_with_a_model_is_not_run(copy: Path, home: Home) -> None:
    (copy / "mine.py").write_text("raise SystemExit('the code was run')")
    edit_config(copy, model_type="mine", auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"})
    with pytest.raises(UserError, match="code that comes with a model is never run"):
        load_model(str(copy), home)


@pytest.mark.parametrize("size", [4, 1000, -100])
def test_damaged_weights_are_a_sentence(size: int, copy: Path, home: Home) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(UserError, match=r"damaged"):
        load_model(str(copy), home)


def test_a_folder_without_a_tokenizer_is_a_sentence(copy: Path, home: Home) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(UserError, match="no tokenizer that can be read"):
        load_model(str(copy), home)


@pytest.mark.real_model
def test_the_default_model_loads_quickly_and_is_the_pinned_one() -> None:
    home = Home.resolve()
    load_model(DEFAULT_MODEL, home)  # fetches and converts the first time
    start = time.perf_counter()
    loaded = load_model(DEFAULT_MODEL, home)
    assert time.perf_counter() - start < 3.0
    assert loaded.sha256 == CATALOG[DEFAULT_MODEL].source.weights_sha256
    assert (loaded.config.num_hidden_layers, loaded.config.intermediate_size) == (30, 1536)

    cut = loaded.tokenizer.convert_ids_to_tokens(loaded.tokenizer("a\n\n2 x  3").input_ids)
    assert cut == ["a", "ĊĊ", "2", "Ġx", "ĠĠ", "3"]
    prompt = loaded.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = loaded.model(**prompt).logits[0, -1].argmax()
    assert loaded.tokenizer.decode(best) == " Paris"
