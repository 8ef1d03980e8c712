"""Gathered MLPs, of both makes, against the masked engine: every policy, every family, token by token."""

import numpy as np
import pytest
import torch

from backend.decoding.gathered_mlp import GatheredMLP, activation_kind
from backend.decoding.layout import laid_out, layout_for
from backend.decoding.matrices import MLPMatrices
from backend.decoding.refusal import timed_methods
from backend.decoding.torch_mlp import TorchGatheredMLP
from backend.models.anatomy import find_anatomy
from backend.sparsity import make_policy
from backend.sparsity.dense_pass import DensePass
from backend.sparsity.engine import MaskedEngine
from backend.sparsity.neuron_pruning import NeuronPruning
from tests.models_tiny import GATED_FAMILIES, tiny_model

POLICIES = [
    ("dense", {}),
    ("dip", {"density": 0.3}),
    ("dip", {"input_keep": 1.0, "neuron_keep": 0.1}),
    ("dip_ca", {"density": 0.5}),
    ("gate_pruning", {"keep": 0.3}),
    ("up_pruning", {"keep": 0.3}),
    ("glu_pruning", {"keep": 0.3}),
    ("magnitude_norm", {"keep": 0.3}),
    ("random", {"keep": 0.3}),
    ("cats", {"keep": 0.3}),
    ("predictor", {"keep": 0.3, "rank": 8, "epochs": 1}),
    ("prompt_attribution", {"keep": 0.3}),
]


class Everywhere(NeuronPruning):
    """Masks inputs *and* ranks by a score of its own that needs the up projection: no kernel knows it."""

    name = "everywhere"
    title = "Everywhere"
    needs = frozenset({"up"})

    def mlp_in(self, x, context):
        return x > 0

    def score(self, activations, context):
        return activations.up + 0.5


def tokens(engine, count=5):
    width = next(iter(engine.anatomy.mlps.values())).hidden_size
    return torch.randn(count, 1, 1, width, generator=torch.Generator().manual_seed(4))


def masked(engine, policy, xs, calibration=None, prepared=None):
    known = {"calibration": calibration, "prepared": prepared}
    with torch.inference_mode(), engine.applied(policy, **known) as reading:
        out = [[mlp.module(x)[0, 0].clone() for x in xs] for mlp in engine.anatomy.mlps.values()]
    return out, reading


def check(engine, policy):
    xs = tokens(engine)
    fitted = engine.calibrate(policy, [torch.arange(3, 60)[None]])
    prompt = DensePass(engine.model, engine.anatomy, torch.arange(3, 20)[None], 17)
    prepared = policy.prepare(prompt) if policy.prompt_alone else None
    expected, reading = masked(engine, policy, xs, fitted, prepared)
    contexts, others = (engine.contexts(policy, calibration=fitted, prepared=prepared) for _ in range(2))
    layout = layout_for(policy)
    with torch.inference_mode(), laid_out(engine.anatomy, layout):
        for layer, mlp in engine.anatomy.mlps.items():
            matrices = MLPMatrices.of(mlp, input_major=layout == "input-major")
            compiled = GatheredMLP(mlp, matrices, policy, contexts[layer], activation_kind(mlp))
            plain = TorchGatheredMLP(mlp, policy, others[layer])
            kept = []
            for x, want in zip(xs, expected[layer], strict=True):
                got = torch.from_numpy(compiled(np.ascontiguousarray(x[0, 0].numpy())))
                torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(plain(x)[0, 0], want, rtol=1e-4, atol=1e-5)
                assert (compiled.kept_in, compiled.kept_mid) == (plain.kept_in, plain.kept_mid)
                kept.append((compiled.kept_in / mlp.hidden_size, compiled.kept_mid / mlp.neurons))
            # What the kernels say they read is what the masks are charged for.
            again = type(reading)(engine.anatomy, policy)
            for first, middle in kept:
                again.add_shares(layer, first, middle, 1)
            assert again._mlp[layer] == pytest.approx(reading._mlp[layer])


@pytest.mark.parametrize(("name", "settings"), POLICIES)
def test_each_policy_gives_what_its_masks_give(llama, name, settings):
    check(llama, make_policy(name, settings))


def test_every_realisable_method_is_among_them():
    assert set(timed_methods()) == {name for name, _ in POLICIES}


@pytest.mark.parametrize("family", GATED_FAMILIES)
@pytest.mark.parametrize(("name", "settings"), [("dip", {"density": 0.4}), ("gate_pruning", {"keep": 0.4})])
def test_each_family_gives_what_its_masks_give(family, name, settings):
    model, _ = tiny_model(family)
    check(MaskedEngine(model, find_anatomy(model)), make_policy(name, settings))


def test_a_policy_that_no_kernel_knows_is_asked_for_its_masks(llama):
    check(llama, Everywhere(keep=0.4))


def test_biases_are_added_by_the_make_that_knows_them():
    model, _ = tiny_model("llama", mlp_bias=True)
    engine = MaskedEngine(model, find_anatomy(model))
    for policy in (make_policy("dip", {"density": 0.4}), make_policy("up_pruning", {"keep": 0.4})):
        xs = tokens(engine)
        expected, _ = masked(engine, policy, xs)
        contexts = engine.contexts(policy)
        for layer, mlp in engine.anatomy.mlps.items():
            gathered = TorchGatheredMLP(mlp, policy, contexts[layer])
            for x, want in zip(xs, expected[layer], strict=True):
                torch.testing.assert_close(gathered(x)[0, 0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "phi3"])
@pytest.mark.parametrize("layout", ["row-major", "input-major"])
def test_a_layout_changes_where_weights_lie_and_nothing_else(family, layout):
    model, _ = tiny_model(family)
    anatomy = find_anatomy(model)
    ids = torch.arange(3, 12)[None]
    before = model(input_ids=ids).logits
    state = {name: p.clone() for name, p in model.named_parameters()}
    with laid_out(anatomy, layout):
        mlp = anatomy.mlps[1]
        assert mlp.down_weight.t().is_contiguous()
        assert mlp.gate_weight.t().is_contiguous() == (layout == "input-major" and not mlp.fused)
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=1e-5, atol=1e-5)
    assert torch.equal(model(input_ids=ids).logits, before)
    for name, parameter in model.named_parameters():
        assert parameter.is_contiguous()
        assert torch.equal(parameter, state[name])


def test_columns_skipped_want_input_major_weights_and_rows_skipped_row_major_ones():
    assert layout_for(make_policy("dip", {"density": 0.5})) == "input-major"
    assert layout_for(make_policy("gate_pruning", {"keep": 0.5})) == "row-major"
    assert layout_for(Everywhere(keep=0.5)) == "row-major"
