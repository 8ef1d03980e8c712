"""The derived mixture of experts, re-routed: a real model with real routers."""

from __future__ import annotations

import pytest
import torch

from backend.evaluation.routing import CacheSetup, RoutingReference, evaluate_routing
from backend.evaluation.windows import Windows
from backend.experiments.laboratory import Laboratory
from backend.routing import make_routing
from backend.routing.anatomy import find_moe
from backend.routing.engine import RoutedEngine

TEXT = "The lighthouse keeper counted the ships that passed in the night, and wrote each one down. "


@pytest.fixture(scope="module")
def subject(real_home):
    return Laboratory(real_home, None, "cpu", 1).subject("smollm2-moe", "float32")


@pytest.mark.real_model
def test_cache_prior_halves_the_misses_of_the_derived_mixture(subject):
    ids = subject.loaded.tokenizer(12 * TEXT, return_tensors="pt").input_ids[:, :192]
    reference = RoutingReference(Windows(ids, (1,)))
    found = {}
    for share in (0.0, 0.2):
        policy = make_routing("cache_prior", {"lambda_": share, "cache_share": 0.5})
        *_, last = evaluate_routing(subject.routing, policy, reference, CacheSetup())
        found[share] = {each["metric"]: each["value"] for each in last.measurements(4)}
    assert found[0.0]["kl"] == pytest.approx(0, abs=1e-6)
    assert found[0.2]["miss_rate"] < 0.6 * found[0.0]["miss_rate"]
    assert 0 < found[0.2]["kl"] < 0.5
    assert 0 < found[0.2]["routing_change"] < 0.5


@pytest.mark.real_model
def test_one_pass_equals_token_by_token_on_the_derived_mixture(subject):
    model = subject.loaded.model.double()
    model.set_experts_implementation("eager")
    engine = RoutedEngine(find_moe(model))
    ids = subject.loaded.tokenizer(TEXT, return_tensors="pt").input_ids[:, :20]
    policy = make_routing("cache_prior", {"lambda_": 0.3, "cache_share": 0.3})
    with torch.inference_mode(), engine.applied(policy) as whole:
        expected = model(input_ids=ids, use_cache=False).logits
    cache, steps = None, []
    with torch.inference_mode(), engine.applied(policy) as single:
        for token in ids[0]:
            output = model(input_ids=token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), expected, rtol=1e-5, atol=1e-5)
    for index, layer in whole.layers.items():
        assert (layer.chosen == single.layers[index].chosen).all()
