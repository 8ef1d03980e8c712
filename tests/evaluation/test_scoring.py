"""NLL, KL and agreement against plain log-softmax arithmetic in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.evaluation.scoring import score_dense, score_sparse
from backend.models.anatomy import Head, find_anatomy
from tests.models_tiny import tiny_model


def head_of(bias: bool, scale: float = 1.0, softcap: float | None = None, seed: int = 0) -> Head:
    torch.manual_seed(seed)
    return Head(torch.nn.Linear(24, 50, bias=bias).requires_grad_(False), scale, softcap)


def reference(head, dense, sparse, targets):
    log_d = head.logits(dense).double().log_softmax(-1)
    log_s = head.logits(sparse).double().log_softmax(-1)
    nll = [-float(row[target]) for row, target in zip(log_s, targets, strict=True)]
    kl = [float((d.exp() * (d - s)).sum()) for d, s in zip(log_d, log_s, strict=True)]
    agrees = [int(d.argmax()) == int(s.argmax()) for d, s in zip(log_d, log_s, strict=True)]
    return nll, kl, agrees


@pytest.mark.parametrize(
    "head", [head_of(False), head_of(True), head_of(True, 0.25), head_of(False, 2.0, 5.0)]
)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), tokens=st.integers(1, 300), noise=st.sampled_from([0.0, 0.01, 1.0]))
def test_scores_equal_plain_log_softmax(head, seed, tokens, noise):
    generator = torch.Generator().manual_seed(seed)
    dense = torch.randn(tokens, 24, generator=generator)
    sparse = dense + noise * torch.randn(tokens, 24, generator=generator)
    targets = torch.randint(0, 50, (tokens,), generator=generator)
    kept = score_dense(head, dense, targets)
    got = score_sparse(head, sparse, kept)
    nll, kl, agrees = reference(head, dense, sparse, targets)
    assert got.nll.tolist() == pytest.approx(nll, abs=2e-5)
    assert got.kl.tolist() == pytest.approx(kl, abs=2e-5)
    assert got.agrees.tolist() == agrees
    assert (kept.hidden is None) == (head.softcap is None)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_the_dense_model_has_no_divergence_from_itself_at_all(softcap):
    head = head_of(True, softcap=softcap)
    hidden = torch.randn(200, 24)
    targets = torch.randint(0, 50, (200,))
    kept = score_dense(head, hidden, targets)
    got = score_sparse(head, hidden, kept)
    assert got.kl.abs().max() == 0
    assert torch.equal(got.nll, kept.nll)
    assert got.agrees.all()


def test_a_soft_capped_family_goes_the_long_way_and_is_right():
    model, _ = tiny_model("gemma2")
    head = find_anatomy(model).head
    assert head.softcap is not None
    dense, sparse = torch.randn(2, 40, model.config.hidden_size)
    targets = torch.randint(0, 100, (40,))
    got = score_sparse(head, sparse, score_dense(head, dense, targets))
    assert got.kl.tolist() == pytest.approx(reference(head, dense, sparse, targets)[1], abs=2e-5)


def test_kl_is_never_negative_beyond_rounding():
    head = head_of(False)
    dense = torch.randn(500, 24)
    got = score_sparse(head, dense * 1.001, score_dense(head, dense, torch.zeros(500, dtype=torch.long)))
    assert got.kl.min() > -1e-6
