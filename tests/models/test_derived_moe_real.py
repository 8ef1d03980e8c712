"""The committed artefact: what is pinned, and that the model does what its report says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from backend.cli import app
from backend.errors import UserError
from backend.evaluation.texts import load_text
from backend.evaluation.windows import cut_windows
from backend.home import MOE, Home
from backend.models import CATALOG, DEFAULT_MODEL, DERIVED_MOE, SPARSER_MOE
from backend.models.anatomy import find_anatomy
from backend.models.derived_moe.artefacts import read_manifest, read_parts
from backend.models.derived_moe.assembly import assemble
from backend.models.derived_moe.masked import masked_model, set_trained
from backend.models.derived_moe.report import score_windows, summary
from backend.models.derived_moe.settings import MoEShape
from backend.models.loading import load_model

NEURONS = 1536
BOUNDS = {DERIVED_MOE: (0.625, 1.4), SPARSER_MOE: (0.56, 1.7)}
"""At most so many of the neurons on, and so many times the dense perplexity."""


@pytest.fixture(scope="module", params=BOUNDS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_derived_mixture_is_tested_here() -> None:
    assert {entry.name for entry in CATALOG.values() if entry.source.kind == "derived"} == set(BOUNDS)


def test_the_committed_artefact_is_the_pinned_one(name: str) -> None:
    folder = MOE / name
    manifest = read_manifest(folder)
    assert manifest.identity == CATALOG[name].source.weights_sha256
    assert manifest.base_sha256 == CATALOG[DEFAULT_MODEL].source.weights_sha256
    parts = read_parts(folder, manifest)  # checks the sha256
    for order in parts["neurons"]:
        assert sorted(order.tolist()) == list(range(NEURONS))
    assert not any("test" in name for name in manifest.text_sha256)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8e6


def test_its_shape_leaves_a_cache_something_to_decide(name: str) -> None:
    shape = MoEShape.parse(read_manifest(MOE / name).shape, "moe")
    assert shape.top_k / shape.experts <= 0.25
    assert shape.share_on(NEURONS) <= BOUNDS[name][0]


def test_the_report_says_that_routing_is_used_and_not_collapsed(name: str) -> None:
    manifest = read_manifest(MOE / name)
    report = manifest.report
    assert report["scored_tokens"] == 16 * 1023
    assert report["ratio"] < BOUNDS[name][1]
    load = np.asarray(report["load"])  # [L, N]
    np.testing.assert_allclose(load.sum(axis=1), manifest.shape["top_k"], atol=0.01)
    assert (load.max(axis=1) < 1.0).all() or (load > 0.999).mean() < 0.05  # few experts are always on
    assert (load < 0.001).mean() < 0.05  # and few never
    entropy = np.asarray(report["entropy_nats"])
    assert (entropy < math.log(manifest.shape["experts"]) - 0.01).all()


def test_the_training_log_is_whole(name: str) -> None:
    lines = [json.loads(line) for line in (MOE / name / "training.jsonl").read_text().splitlines()]
    manifest = read_manifest(MOE / name)
    assert [line["step"] for line in lines] == list(range(1, manifest.training["steps"] + 1))
    assert lines[-1]["tokens"] == manifest.report["training"]["tokens"]


@pytest.fixture(scope="module")
def real_models(name: str) -> tuple[object, object]:
    home = Home.resolve()
    return load_model(DEFAULT_MODEL, home), load_model(name, home)


@pytest.mark.real_model
def test_it_loads_by_name_with_the_dense_tokenizer(name: str, real_models: tuple) -> None:
    dense, moe = real_models
    assert type(moe.model).__name__ == "Qwen2MoeForCausalLM"
    assert moe.sha256 == CATALOG[name].source.weights_sha256
    assert moe.tokenizer("Sparse experts.").input_ids == dense.tokenizer("Sparse experts.").input_ids
    prompt = moe.tokenizer("The capital of France is", return_tensors="pt")
    written = moe.model.generate(**prompt, max_new_tokens=4, do_sample=False)
    assert moe.tokenizer.decode(written[0]).startswith("The capital of France is ")


@pytest.mark.real_model
def test_without_corrections_and_with_all_experts_on_it_is_the_dense_model(
    name: str, real_models: tuple
) -> None:
    dense, _ = real_models
    manifest = read_manifest(MOE / name)
    parts = read_parts(MOE / name, manifest)
    whole = assemble(dense.model, MoEShape.parse(manifest.shape, "moe"), {"neurons": parts["neurons"]})
    for layer in whole.model.layers:
        layer.mlp.gate.top_k = manifest.shape["experts"]
    ids = dense.tokenizer(
        "All experts with equal weights are the dense model.", return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        expected, found = dense.model(ids).logits, whole(ids).logits
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)  # logits reach 30; other order of sums


@pytest.mark.real_model
def test_the_assembled_model_computes_what_was_trained(name: str, real_models: tuple) -> None:
    dense, moe = real_models
    manifest = read_manifest(MOE / name)
    parts = {name: tensor.float() for name, tensor in read_parts(MOE / name, manifest).items()}
    neurons = parts.pop("neurons")
    rank = parts["lora.gate_a"].shape[1] if "lora.gate_a" in parts else 0
    masked = masked_model(dense.model, neurons, MoEShape.parse(manifest.shape, "moe"), rank).eval()
    set_trained(masked, parts)
    ids = dense.tokenizer(
        "The router of every layer chooses thirty-two experts.", return_tensors="pt"
    ).input_ids
    with torch.inference_mode():
        torch.testing.assert_close(moe.model(ids).logits, masked(ids).logits, atol=2e-3, rtol=1e-3)


@pytest.mark.real_model
@pytest.mark.real_data
def test_its_perplexity_is_the_one_reported(
    name: str, real_models: tuple, data_root: Path, tmp_path: Path
) -> None:
    dense, moe = real_models
    windows = cut_windows(load_text("wikitext2", data_root), dense.tokenizer, 2, 1024)
    found = summary(score_windows(dense.model, moe.model, windows, tmp_path / "scores.jsonl"))
    assert found["dense_perplexity"] == pytest.approx(20.29, abs=0.02)
    report = read_manifest(MOE / name).report
    assert found["perplexity"] == pytest.approx(report["first_windows_perplexity"], rel=2e-3)
    assert found["ratio"] < 1.6
    assert found["delta_nll_stderr"] > 0


@pytest.mark.real_model
def test_pruning_neurons_of_it_is_refused_in_a_sentence(real_models: tuple) -> None:
    with pytest.raises(UserError, match="is a mixture of experts"):
        find_anatomy(real_models[1].model)


@pytest.mark.real_model
def test_int8_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="cannot be rounded to int8"):
        load_model(DERIVED_MOE, Home.resolve(), dtype="int8")


@pytest.mark.real_model
def test_the_simulator_of_dense_mlps_refuses_it() -> None:
    options = ["--device", "a18", "--shape", DERIVED_MOE, "--dram-gb", "1", "--policy", "dense"]
    result = CliRunner().invoke(app, ["simulate", *options])
    assert result.exit_code == 2
    assert "routes among experts" in result.stderr
