"""Perplexity and fidelity end to end on a tiny model, against Hugging Face's own loss."""

import math

import pytest
import torch

from backend.evaluation.fidelity import DenseReference, evaluate
from backend.evaluation.windows import Windows
from backend.sparsity import make_policy

IDS = torch.randint(3, 100, (3, 12), generator=torch.Generator().manual_seed(2))


def run(engine, policy, windows, reference=None):
    *_, result = evaluate(engine, policy, reference or DenseReference(windows))
    return result, {each["metric"]: each for each in result.measurements(4)}


def test_dense_perplexity_is_hugging_faces_loss(llama):
    _, found = run(llama, make_policy("dense", {}), Windows(IDS, (1, 1, 1)))
    with torch.inference_mode():
        losses = [llama.model(row[None], labels=row[None]).loss.item() for row in IDS]
    assert found["nll"]["value"] == pytest.approx(sum(losses) / 3, abs=1e-5)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(found["nll"]["value"]))
    assert found["nll"]["n"] == 33
    assert found["delta_nll"]["value"] == found["delta_nll"]["stderr"] == found["kl"]["value"] == 0
    assert found["agreement"]["value"] == 1


def test_with_a_stride_only_the_new_tokens_are_scored(llama):
    result, found = run(llama, make_policy("dense", {}), Windows(IDS, (1, 8, 8)))
    with torch.inference_mode():
        log_p = llama.model(IDS).logits[:, :-1].log_softmax(-1)
    each = -log_p.gather(-1, IDS[:, 1:, None]).squeeze(-1)
    expected = torch.cat([each[0], each[1, 7:], each[2, 7:]])
    assert found["nll"]["value"] == pytest.approx(float(expected.mean()), abs=1e-5)
    assert result.counts == [11, 4, 4]


def test_the_dense_reference_is_computed_once_and_shared(llama, monkeypatch):
    windows = Windows(IDS, (1, 1, 1))
    reference = DenseReference(windows)
    run(llama, make_policy("dip", {"density": 0.5}), windows, reference)
    kept = dict(reference.scores)
    run(llama, make_policy("glu_pruning", {"keep": 0.5}), windows, reference)
    assert all(reference.scores[index] is kept[index] for index in range(3))


def test_delta_nll_is_paired_with_the_dense_model_window_by_window(llama):
    windows = Windows(IDS, (1, 1, 1))
    dense, _ = run(llama, make_policy("dense", {}), windows)
    sparse, found = run(llama, make_policy("dip", {"density": 0.3}), windows)
    differences = [s - d for s, d in zip(sparse.windows["nll"], dense.windows["nll"], strict=True)]
    assert sparse.windows["delta_nll"] == pytest.approx(differences, abs=1e-9)
    mean = sum(differences) / 3
    spread = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    assert found["delta_nll"]["stderr"] == pytest.approx(spread)


def test_an_oracles_figures_are_marked_as_oracle(llama):
    _, found = run(llama, make_policy("glu_oracle", {"keep": 0.3}), Windows(IDS, (1, 1, 1)))
    assert found["kl"]["how"] == found["perplexity"]["how"] == "oracle"
    _, found = run(llama, make_policy("glu_pruning", {"keep": 0.3}), Windows(IDS, (1, 1, 1)))
    assert {each["how"] for each in found.values()} == {"measured"}


def test_bytes_per_token_are_the_weights_read_at_their_size(llama):
    result, found = run(llama, make_policy("dip", {"density": 0.5}), Windows(IDS, (1, 1, 1)))
    assert found["bytes_per_token"]["value"] == pytest.approx(
        4 * found["model_density"]["value"] * llama.anatomy.weights_per_token
    )
    assert result.reading.tokens == IDS.numel()
