"""One pass equals token-by-token decoding; a policy changes what it says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.errors import UserError
from backend.residency import simulate
from backend.routing import NONE, ROUTINGS, make_routing
from backend.routing.anatomy import find_moe
from backend.routing.engine import RoutedEngine
from tests.moe_tiny import TOP_K, tiny_moe

IDS = torch.randint(3, 100, (1, 48), generator=torch.Generator().manual_seed(9))
SETTINGS = [
    ("cache_prior", {"lambda_": 0.4, "slots": 5}),
    ("cache_prior", {"lambda_": 0.3, "slots": 5, "spread": "ema", "eviction": "lfu", "top_j": 1}),
    ("cache_prior", {"lambda_": 0.3, "slots": 6, "prompt": "original"}),
    ("max_rank", {"m": 8, "slots": 6, "eviction": "random", "seed": 3}),
    ("cumulative_threshold", {"p": 0.8, "slots": 5}),
    ("top_p", {"p": 0.5}),
    ("random_swap", {"rank": 2}),
    ("expert_pruning", {"experts": 1, "prompt": "original"}),
    ("original", {}),
]


@pytest.fixture(scope="module", params=["mixtral", "qwen2_moe", "deepseek_v3"])
def double(request) -> RoutedEngine:
    """In float64 one pass and single tokens round so nearly alike that no near-tie falls the other way."""
    return RoutedEngine(find_moe(tiny_moe(request.param, dtype=torch.float64)))


@pytest.fixture(scope="module")
def engine() -> RoutedEngine:
    return RoutedEngine(find_moe(tiny_moe("qwen2_moe")))


def fitting(engine, settings):
    """Slots and ranks for a model of two experts a token too."""
    return {key: min(value, engine.anatomy.k) if key == "rank" else value for key, value in settings.items()}


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_one_pass_equals_token_by_token(double, name, settings):
    policy = make_routing(name, fitting(double, settings))
    with torch.inference_mode(), double.applied(policy, sequence=2, prompt=10) as whole:
        expected = double.model(input_ids=IDS, use_cache=False).logits
    steps, cache = [], None
    with torch.inference_mode(), double.applied(policy, sequence=2, prompt=10) as single:
        for token in IDS[0]:
            output = double.model(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), expected, rtol=1e-6, atol=1e-6)
    for layer, reading in whole.layers.items():
        assert (reading.chosen == single.layers[layer].chosen).all(), layer
        np.testing.assert_allclose(reading.lost_mass, single.layers[layer].lost_mass, atol=1e-6)


def test_the_original_routing_is_the_model(engine):
    expected = engine.anatomy.decoder(input_ids=IDS, use_cache=False).last_hidden_state
    got, reading = engine.hidden_states(make_routing("original", {}), IDS)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    for layer in reading.layers.values():
        assert layer.outside.sum() == layer.dropped.sum() == layer.lost_rank.sum() == 0
        assert layer.lost_mass.sum() == 0
        assert (layer.counts == TOP_K).all()
    again = engine.anatomy.decoder(input_ids=IDS, use_cache=False).last_hidden_state
    assert torch.equal(again, expected)


def test_a_prompt_that_keeps_its_routing_is_the_models_own(engine):
    own, _ = engine.hidden_states(make_routing("original", {}), IDS)
    settings = {"lambda_": 1.0, "slots": 4}
    kept, reading = engine.hidden_states(
        make_routing("cache_prior", {**settings, "prompt": "original"}), IDS, prompt=20
    )
    torch.testing.assert_close(kept[:, :20], own[:, :20], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(kept[:, 20:], own[:, 20:])
    assert all(layer.outside[:20].sum() == 0 for layer in reading.layers.values())
    assert any(layer.outside[20:].sum() > 0 for layer in reading.layers.values())
    moved, _ = engine.hidden_states(make_routing("cache_prior", settings), IDS, prompt=20)
    assert not torch.allclose(moved[:, :20], own[:, :20])


def test_a_prompt_warms_the_cache_that_the_policy_looks_at(engine):
    """The first re-routed token prefers what the prompt left in the cache, as a walk over its trace says."""
    policy = make_routing("max_rank", {"m": 8, "slots": 4, "top_j": 0, "prompt": "original"})
    _, reading = engine.hidden_states(policy, IDS, prompt=20)
    for layer in reading.layers.values():
        prompt = layer.chosen[:20]
        trace = type(layer.trace()).from_lists(prompt.tolist(), layer.experts)
        resident = set(np.flatnonzero(simulate(trace, 4).resident))
        assert set(layer.chosen[20]) == resident  # M = N, J = 0, C = K: exactly what is there


def test_distance_from_the_original_is_counted(engine):
    """By sets and probabilities of the run's own routers, each slot on its own."""
    seen = {}
    policy = make_routing("cache_prior", {"lambda_": 0.6, "slots": 4})
    own_choose = type(policy).choose

    class Watching(type(policy)):
        def choose(self, routes, context):
            seen[context.layer] = routes
            return own_choose(self, routes, context)

    _, reading = engine.hidden_states(Watching(**policy.model_dump()), IDS)
    for index, layer in reading.layers.items():
        routes = seen[index]
        for t in range(len(layer.chosen)):
            used, own = set(layer.chosen[t].tolist()) - {NONE}, set(routes.original[t].tolist())
            assert layer.outside[t] == len(used - own)
            assert layer.dropped[t] == len(own - used)
            lost = sum(float(routes.probabilities[t, e]) for e in own - used)
            assert layer.lost_mass[t] == pytest.approx(lost, abs=1e-6)
            ranks = sorted(routes.order[t].tolist().index(e) for e in used)
            assert layer.lost_rank[t] == sum(rank - place for place, rank in enumerate(ranks))


@pytest.mark.parametrize("name", [name for name in ROUTINGS if name not in ("original", "adapmoe")])
def test_every_policy_leaves_the_model_as_it_was(engine, name):
    before = engine.anatomy.decoder(input_ids=IDS, use_cache=False).last_hidden_state
    settings = {"adaptive_k": {"high": 3.0}, "cumulative_threshold": {"p": 0.95}}.get(name, {})
    changed, _ = engine.hidden_states(make_routing(name, settings), IDS)
    assert not torch.allclose(changed, before)
    after = engine.anatomy.decoder(input_ids=IDS, use_cache=False).last_hidden_state
    assert torch.equal(before, after)


def test_an_error_inside_leaves_the_model_as_it_was(engine):
    before = engine.anatomy.decoder(input_ids=IDS, use_cache=False).last_hidden_state
    with pytest.raises(RuntimeError, match="on purpose"), engine.applied(make_routing("cache_prior", {})):
        raise RuntimeError("on purpose")
    after = engine.anatomy.decoder(input_ids=IDS, use_cache=False).last_hidden_state
    assert torch.equal(before, after)


def test_a_batch_is_refused(engine):
    with pytest.raises(UserError, match="one sequence at a time, not a batch of 2"):
        engine.hidden_states(make_routing("original", {}), IDS.repeat(2, 1))


def test_a_cache_below_k_is_refused_before_anything_runs(engine):
    with pytest.raises(UserError, match="cannot serve a token that uses 4"):
        engine.hidden_states(make_routing("cache_prior", {"slots": 3}), IDS)
