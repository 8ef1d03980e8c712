"""Integrated gradients against a slow loop, and their completeness."""

import pytest
import torch

from backend.models.anatomy import find_anatomy
from backend.sparsity import make_policy
from backend.sparsity.dense_pass import DensePass
from tests.models_tiny import GATED_FAMILIES, tiny_model

IDS = torch.randint(1, 100, (2, 19), generator=torch.Generator().manual_seed(5))


def module_of(anatomy, kind, layer):
    return anatomy.mlps[layer].module.down_proj if kind == "neurons" else anatomy.attentions[layer].out


def scaled_score(model, module, ids, label, scale):
    """log p(label) with a layer's units scaled at the last position alone, and their gradient there."""
    leaves = []

    def change(_module, args):
        last = (args[0][:, -1:].detach() * scale).requires_grad_()
        leaves.append(last)
        return (torch.cat([args[0][:, :-1].detach(), last], dim=1),)

    handle = module.register_forward_pre_hook(change)
    with torch.enable_grad():
        score = model(input_ids=ids[None], use_cache=False).logits[0, -1].log_softmax(-1)[label]
        (gradient,) = torch.autograd.grad(score, leaves)
    handle.remove()
    return float(score), gradient[0, 0]


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_every_position_has_what_a_loop_over_scales_gives(family, monkeypatch):
    """Several scales share a pass; two query heads share a key; Gemma 2 has a window of 16."""
    monkeypatch.setattr("backend.sparsity.integrated_gradients.TOKENS_AT_ONCE", 40)
    model, _ = tiny_model(family)
    anatomy = find_anatomy(model)
    dense = DensePass(model, anatomy, IDS, prompt=2)
    got = make_policy("integrated_gradients", {"steps": 5, "units": "both", "label": "second"}).scores(dense)
    for row, position, layer in ((0, 4, 0), (1, 18, 1)):
        ids = IDS[row, : position + 1]
        label = model(input_ids=ids[None], use_cache=False).logits[0, -1].topk(2).indices[1]
        for kind in ("neurons", "heads"):
            module = module_of(anatomy, kind, layer)
            steps = [scaled_score(model, module, ids, label, n / 5)[1] for n in range(1, 6)]
            x = getattr(dense.activations(), kind)[layer][row, position - 2]
            expected = x * sum(steps) / 5
            if kind == "heads":
                expected = expected.view(-1, anatomy.attentions[layer].head_size).sum(-1)
            scale = float(expected.abs().max())
            torch.testing.assert_close(
                getattr(got, kind)[layer][row, position - 2], expected, rtol=1e-3, atol=1e-4 * scale
            )


@pytest.mark.parametrize("kind", ["neurons", "heads"])
def test_attributions_add_up_to_what_the_layer_gives(llama, kind):
    """Completeness: Σ_i = F(x) − F(0), with many scales."""
    dense = DensePass(llama.model, llama.anatomy, IDS[:1, :6])
    units = "mlp" if kind == "neurons" else "heads"
    got = make_policy("integrated_gradients", {"steps": 400, "units": units}).scores(dense)
    label = llama.model(IDS[:1, :6], use_cache=False).logits[0, -1].argmax()
    module = module_of(llama.anatomy, kind, 1)
    whole, nothing = (scaled_score(llama.model, module, IDS[0, :6], label, scale)[0] for scale in (1.0, 0.0))
    assert float(getattr(got, kind)[1][0, -1].sum()) == pytest.approx(whole - nothing, rel=0.02, abs=2e-4)


def test_one_scale_is_gxo_and_what_is_not_asked_for_is_not_computed(llama):
    dense = DensePass(llama.model, llama.anatomy, IDS)
    single = make_policy("integrated_gradients", {"steps": 1}).scores(dense)
    plain = make_policy("gxo", {}).scores(dense)
    assert single.heads == {}
    for layer, values in single.neurons.items():
        torch.testing.assert_close(values, plain.neurons[layer], rtol=1e-4, atol=1e-7)


def test_a_grid_of_ratios_shares_its_gradients(llama, monkeypatch):
    from backend.sparsity.integrated_gradients import IntegratedGradients

    calls = []
    made = IntegratedGradients._averaged
    monkeypatch.setattr(
        IntegratedGradients, "_averaged", lambda self, *given: calls.append(1) or made(self, *given)
    )
    dense = DensePass(llama.model, llama.anatomy, IDS)
    for keep in (0.2, 0.5):
        make_policy("integrated_gradients", {"steps": 2, "keep": keep}).prepare(dense)
    assert len(calls) == 1
    make_policy("integrated_gradients", {"steps": 2, "label": "second"}).prepare(dense)
    assert len(calls) == 2
