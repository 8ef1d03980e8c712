"""The derived mixture's experts in one product: the same sum as transformers' loop over them."""

from __future__ import annotations

import pytest
import torch

from backend.models.derived_moe.masked_experts import INTERFACE, transformers_experts, use_masked_experts
from tests.moe_tiny import tiny_moe


@pytest.fixture
def model():
    return tiny_moe("qwen2_moe")


@pytest.mark.parametrize("tokens", [1, 7])
def test_it_is_the_loops_sum(model, tokens):
    experts = model.model.layers[0].mlp.experts
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, experts.hidden_dim, generator=generator)
    chosen = torch.rand(tokens, experts.num_experts, generator=generator).topk(3).indices
    weights = torch.rand(chosen.shape, generator=generator)
    weights[0, 1] = 0.0
    chosen[-1, 2] = experts.num_experts  # none: transformers' mark of a slot that is not used
    model.set_experts_implementation("eager")
    with torch.inference_mode():
        expected = experts(x, chosen, weights)
        use_masked_experts(model)
        found = experts(x, chosen, weights)
    assert expected.abs().max() > 0
    torch.testing.assert_close(found, expected)


def test_transformers_experts_are_lent_and_given_back(model):
    before = model.get_experts_implementation()
    with transformers_experts(model):
        assert model.get_experts_implementation() == before  # they are its own already
    use_masked_experts(model)
    with transformers_experts(model):
        assert model.get_experts_implementation()[""] == "eager"
    assert model.get_experts_implementation()[""] == INTERFACE
