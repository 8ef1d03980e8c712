"""Rounding to int8: nearest, idempotent, per output row."""

import torch

from backend.models.quantization import quantise_rows, round_to_int8
from tests.models_tiny import tiny_model


def weights(rows=13, columns=29):
    made = torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))
    made[2] = 0
    return made * torch.logspace(-3, 3, rows)[:, None]


def test_no_weight_is_further_off_than_half_a_step_of_its_row():
    weight = weights()
    values, scales = quantise_rows(weight)
    steps = weight.abs().amax(1, keepdim=True) / 127
    assert ((values.float() * scales[:, None] - weight).abs() <= steps * 0.501).all()
    assert values.abs().amax() == 127


def test_a_rounded_weight_gives_itself_back():
    values, scales = quantise_rows(weights())
    again, same = quantise_rows(values.float() * scales[:, None])
    assert torch.equal(values, again)
    torch.testing.assert_close(scales[scales > 1e-30], same[scales > 1e-30])


def test_every_linear_weight_of_a_model_is_rounded_and_a_tied_head_stays_tied():
    model, _ = tiny_model("llama")
    before = {name: p.clone() for name, p in model.named_parameters()}
    round_to_int8(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, before[name])
        else:
            levels = torch.stack([torch.unique(row.abs()).numel() * torch.ones(()) for row in parameter])
            assert levels.max() <= 128, name
            error = (parameter - before[name]).norm() / before[name].norm()
            assert 0 < float(error) < 0.01, name
