"""Guesses of the next layer's experts: against a slow walk, with the control, and the output untouched."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from backend.errors import UserError
from backend.routing.anatomy import find_moe
from backend.routing.prefetch import GuessReading, experts_for, guessing, read_guesses
from tests.moe_tiny import tiny_moe

IDS = torch.randint(3, 120, (1, 50), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=["qwen2_moe", "mixtral", "olmoe", "deepseek_v2"])
def anatomy(request):
    return find_moe(tiny_moe(request.param))


def run(anatomy, ids=IDS):
    with torch.inference_mode():
        return anatomy.model(ids).logits


def inputs_and_choices(anatomy):
    """Each router's input and choice, noted by plain hooks."""
    seen = {}
    handles = [
        layer.router.register_forward_hook(
            lambda module, arguments, output, at=index: seen.__setitem__(at, (arguments[0], output[2]))
        )
        for index, layer in anatomy.layers.items()
    ]
    run(anatomy)
    for handle in handles:
        handle.remove()
    return seen


def test_recall_is_the_share_found_by_hand(anatomy):
    seen = inputs_and_choices(anatomy)
    reading = read_guesses(anatomy.layers, lambda: run(anatomy))
    order = list(anatomy.layers)
    assert list(reading.used) == order[1:]  # nothing comes before the first
    right = used = 0
    for now, later in pairwise(order):
        with torch.inference_mode():
            guesses = anatomy.layers[later].router(seen[now][0])[2].tolist()
        found = sum(len(set(g) & set(u)) for g, u in zip(guesses, seen[later][1].tolist(), strict=True))
        assert reading.recall(later) == found / (50 * anatomy.k)
        right, used = right + found, used + 50 * anatomy.k
    assert reading.recall() == right / used
    assert reading.wasted_per_token == pytest.approx((used - right) / 50)
    assert 0 < reading.recall() < 1


def test_the_control_finds_every_expert(anatomy):
    control = read_guesses(anatomy.layers, lambda: run(anatomy), ahead=0)
    assert control.recall() == 1
    assert control.wasted_per_token == 0
    assert list(control.used) == list(anatomy.layers)


def test_two_layers_ahead_guesses_fewer_layers(anatomy):
    order = list(anatomy.layers)
    further = read_guesses(anatomy.layers, lambda: run(anatomy), ahead=2)
    assert list(further.used) == order[2:]


def test_the_output_is_the_same_bit_for_bit(anatomy):
    expected = run(anatomy)
    told = []
    with guessing(anatomy.layers, lambda layer, experts: told.append(layer)):
        assert torch.equal(run(anatomy), expected)
    assert told == list(anatomy.layers)[1:]
    assert torch.equal(run(anatomy), expected)
    assert len(told) == len(anatomy.layers) - 1  # and nobody is told any more


def test_token_by_token_is_the_same_as_all_at_once(anatomy):
    def decode():
        cache = None
        with torch.inference_mode():
            for token in IDS[0]:
                out = anatomy.model(token.view(1, 1), past_key_values=cache, use_cache=True)
                cache = out.past_key_values

    stepwise, at_once = (
        read_guesses(anatomy.layers, decode),
        read_guesses(anatomy.layers, lambda: run(anatomy)),
    )
    assert stepwise.recall() == pytest.approx(at_once.recall(), abs=0.01)
    assert stepwise.tokens == at_once.tokens


def test_empty_slots_are_no_experts():
    reading = GuessReading()
    reading.add(1, np.array([[3, 1]]), np.array([[1, -1]]))
    assert reading.recall() == 1
    assert reading.wasted_per_token == 1


def test_routers_that_take_more_than_hidden_states_are_refused(anatomy, monkeypatch):
    first, second = list(anatomy.layers.values())[:2]
    with (
        guessing({1: first, 2: second}, lambda layer, experts: None),
        pytest.raises(UserError, match="take more"),
    ):
        first.router(torch.zeros(1, 48), torch.zeros(8))
    assert experts_for(first, torch.zeros(2, 48)).shape == (2, anatomy.k)
