import pytest
import torch

from backend.errors import UserError
from backend.models.anatomy import find_anatomy
from tests.models_tiny import GATED_FAMILIES, UNGATED_FAMILIES, tiny_model


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_every_gated_mlp_is_found_with_its_shapes_and_activation(family):
    model, _ = tiny_model(family)
    anatomy = find_anatomy(model)
    config = model.config
    assert list(anatomy.mlps) == list(range(config.num_hidden_layers))
    assert list(anatomy.attentions) == list(range(config.num_hidden_layers))
    x = torch.randn(3, config.hidden_size, generator=torch.Generator().manual_seed(0))
    for layer, mlp in anatomy.mlps.items():
        assert (mlp.hidden_size, mlp.neurons) == (config.hidden_size, config.intermediate_size)
        assert mlp.gate_weight.shape == mlp.up_weight.shape == (mlp.neurons, mlp.hidden_size)
        assert mlp.down_weight.shape == (mlp.hidden_size, mlp.neurons)
        with torch.inference_mode():
            by_weights = mlp.activation(x @ mlp.gate_weight.T) * (x @ mlp.up_weight.T) @ mlp.down_weight.T
            torch.testing.assert_close(
                by_weights, model.get_decoder().layers[layer].mlp(x), rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("family", GATED_FAMILIES)
def test_the_head_makes_the_models_own_logits(family):
    model, _ = tiny_model(family)
    anatomy = find_anatomy(model)
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        hidden = anatomy.decoder(input_ids=ids).last_hidden_state
        torch.testing.assert_close(anatomy.head.logits(hidden), model(ids).logits, rtol=1e-4, atol=1e-5)


def test_column_norms_are_those_of_the_down_projection():
    model, _ = tiny_model("phi3")
    mlp = find_anatomy(model).mlps[0]
    expected = [float((mlp.down_weight[:, i] ** 2).sum() ** 0.5) for i in range(mlp.neurons)]
    assert mlp.down_column_norms.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("family", UNGATED_FAMILIES)
def test_a_model_without_gated_mlps_gets_a_sentence(family):
    model, _ = tiny_model(family)
    with pytest.raises(UserError, match=r"has no gated MLPs .* Llama, Qwen, Mistral, Gemma or Phi-3"):
        find_anatomy(model)


def test_an_mlp_that_does_something_else_is_not_taken_for_a_gated_one():
    model, _ = tiny_model("llama")
    for layer in model.model.layers:
        plain = layer.mlp.forward
        layer.mlp.forward = lambda x, plain=plain: plain(x).clamp(-1e-4, 1e-4)
    with pytest.raises(UserError, match="has no gated MLPs"):
        find_anatomy(model)


def test_logits_made_in_an_unknown_way_are_refused():
    model, _ = tiny_model("llama")
    plain = model.forward

    def forward(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = output.logits + torch.arange(output.logits.shape[-1])
        return output

    model.forward = forward
    with pytest.raises(UserError, match="makes its logits from the final hidden states in a way"):
        find_anatomy(model)
