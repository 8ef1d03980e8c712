"""Own-token gradients against one plain backward pass a position, on every family."""

import pytest
import torch

from backend.errors import UserError
from backend.models.anatomy import find_anatomy
from backend.sparsity.dense_pass import DensePass
from backend.sparsity.own_token import own_token_attention
from tests.models_tiny import GATED_FAMILIES, tiny_model

IDS = torch.randint(1, 100, (2, 21), generator=torch.Generator().manual_seed(11))


def plain_gradients(model, anatomy, ids, target):
    """∂ log p(target | ids) / ∂x at the last position, by ordinary attention and autograd. # ids: [T]"""
    inputs = {}

    def keep(key):
        def hook(_module, args):
            inputs[key] = args[0] if args[0].requires_grad else args[0].detach().requires_grad_()
            return (inputs[key],)

        return hook

    handles = [
        m.module.down_proj.register_forward_pre_hook(keep(("neurons", i))) for i, m in anatomy.mlps.items()
    ]
    handles += [a.out.register_forward_pre_hook(keep(("heads", i))) for i, a in anatomy.attentions.items()]
    with torch.enable_grad():
        score = model(input_ids=ids[None], use_cache=False).logits[0, -1].log_softmax(-1)[target]
        found = torch.autograd.grad(score, list(inputs.values()))
    for handle in handles:
        handle.remove()
    return {key: g[0, -1] for key, g in zip(inputs, found, strict=True)}


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_one_pass_gives_every_position_what_a_backward_pass_of_its_own_gives(family):
    """Two query heads share a key; Gemma 2 has a soft-cap and a window of 16, which the text crosses."""
    model, _ = tiny_model(family)
    anatomy = find_anatomy(model)
    dense = DensePass(model, anatomy, IDS)
    at_once = dense.gradients("next")
    for row, position in ((0, 0), (0, 8), (1, 19)):
        expected = plain_gradients(model, anatomy, IDS[row, : position + 1], IDS[row, position + 1])
        assert len(expected) == 2 * anatomy.layers
        for (kind, layer), gradient in expected.items():
            got = getattr(at_once, kind)[layer][row, position]
            scale = float(gradient.abs().max())
            torch.testing.assert_close(got, gradient, rtol=1e-4, atol=1e-5 * scale)


def test_an_ordinary_backward_pass_of_the_sum_is_another_gradient(llama):
    """What later tokens owe to a position through its key and value is not its own."""
    dense = DensePass(llama.model, llama.anatomy, IDS[:1])
    with torch.enable_grad():
        tape = []
        handle = llama.anatomy.mlps[0].module.down_proj.register_forward_pre_hook(
            lambda _m, args: tape.append(args[0].detach().requires_grad_()) or (tape[0],)
        )
        logits = llama.model(IDS[:1], use_cache=False).logits[0, :-1].log_softmax(-1)
        handle.remove()
        total = logits.gather(-1, IDS[0, 1:, None]).sum()
        (summed,) = torch.autograd.grad(total, tape)
    own = dense.gradients("next").neurons[0]
    assert not torch.allclose(summed[0, 0], own[0, 0], rtol=1e-2)


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_its_forward_pass_is_the_models_and_the_model_is_left_as_it_was(family):
    model, _ = tiny_model(family)
    before = model.config._attn_implementation
    expected = model(IDS).logits
    with own_token_attention(model):
        torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-5)
    assert model.config._attn_implementation == before
    assert torch.equal(model(IDS).logits, expected)


def test_a_prompt_is_left_out_and_changes_no_gradient(llama):
    whole = DensePass(llama.model, llama.anatomy, IDS).gradients("own")
    after = DensePass(llama.model, llama.anatomy, IDS, prompt=6).gradients("own")
    for layer, values in whole.neurons.items():
        assert after.neurons[layer].shape[1] == IDS.shape[1] - 6
        torch.testing.assert_close(values[:, 6:], after.neurons[layer], rtol=1e-4, atol=1e-7)


def test_attention_with_sinks_is_refused_in_a_sentence():
    from backend.sparsity.own_token import _attend

    q = torch.zeros(1, 2, 3, 4)
    with pytest.raises(UserError, match="attention sinks"):
        _attend(torch.nn.Identity(), q, q, q, None, s_aux=torch.zeros(2))
