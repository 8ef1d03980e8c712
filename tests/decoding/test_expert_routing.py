"""Routing policies on a store: what they choose by what is really resident is what the simulation chooses."""

from __future__ import annotations

import pytest
import torch

from backend.decoding.expert_file import store_experts
from backend.decoding.expert_latency import DecodedSide, StoreSettings, measure_store
from backend.decoding.expert_layers import find_expert_layers
from backend.decoding.expert_routing import StoreRouting
from backend.decoding.expert_store import ExpertStore
from backend.errors import UserError
from backend.residency import ExpertTrace, simulate
from backend.routing import make_routing
from backend.routing.anatomy import find_moe
from backend.routing.engine import RoutedEngine
from backend.routing.prefetch import read_guesses
from tests.moe_tiny import tiny_moe

IDS = torch.randint(3, 120, (100,), generator=torch.Generator().manual_seed(5))
SLOTS = 5
CACHE = {"slots": SLOTS}
pytestmark = pytest.mark.usefixtures("stores_in_memory")


class Subject:
    def __init__(self, family, folder):
        self.model = tiny_moe(family)
        self.anatomy = find_moe(self.model)
        self.layers = find_expert_layers(self.model)
        self.file = store_experts(self.layers, folder)

    def served(self, policy, prompt=0, eviction="lru", prefetch=False):
        """Decode token by token on a store; return its counters, selections and the last logits."""
        store = ExpertStore(
            self.model,
            self.layers,
            self.file,
            slots=SLOTS,
            eviction=eviction,
            prefetch=prefetch,
            keep_trace=True,
        )
        routing = StoreRouting(
            self.anatomy, self.layers, policy, slots=SLOTS, prompt=prompt, prefetch=prefetch
        )(store)
        side = DecodedSide(self.model, routing)
        with store:
            side.feed(IDS[:-1].tolist())
            with routing():
                logits = side._step(IDS[-1:][None])
        store.close()
        return store, logits

    def simulated(self, policy, prompt=0):
        """Run the same in one pass with simulated caches; return the reading and the last logits."""
        engine = RoutedEngine(self.anatomy)
        hidden, reading = engine.hidden_states(policy, IDS[None], prompt=prompt)
        return reading, engine.head.logits(hidden[0, -1:])[0]


@pytest.fixture(scope="module", params=["qwen2_moe", "mixtral", "olmoe", "deepseek_v3"])
def subject(request, tmp_path_factory):
    return Subject(request.param, tmp_path_factory.mktemp("experts"))


@pytest.mark.parametrize(
    ("name", "settings", "prompt"),
    [
        ("original", {}, 0),
        ("cache_prior", {"lambda_": 0.4, **CACHE}, 0),
        ("cache_prior", {"lambda_": 0.4, **CACHE, "spread": "ema", "top_j": 0}, 0),
        ("cache_prior", {"lambda_": 0.4, **CACHE, "prompt": "original"}, 30),
        ("max_rank", {"m": 6, **CACHE, "top_j": 1}, 0),
        ("cumulative_threshold", {"p": 0.7, **CACHE, "eviction": "lfu", "top_j": 0}, 0),
        ("expert_pruning", {"experts": 1}, 0),
    ],
)
def test_real_residents_give_the_simulated_choices_and_misses(subject, name, settings, prompt):
    policy = make_routing(name, settings)
    store, logits = subject.served(policy, prompt, settings.get("eviction", "lru"))
    reading, expected = subject.simulated(policy, prompt)
    eviction = settings.get("eviction", "lru")
    misses = 0
    for served, layer in zip(store.trace, reading.layers.values(), strict=True):
        assert served == [[int(expert) for expert in row if expert >= 0] for row in layer.chosen]
        misses += simulate(layer.trace(), SLOTS, eviction).misses.sum()
    assert torch.allclose(logits, expected, rtol=0, atol=1e-4)
    assert store.counters.misses == misses


def test_a_prior_that_is_strong_misses_less_than_the_models_own_routing(subject):
    own, _ = subject.served(make_routing("original", {}))
    near, _ = subject.served(make_routing("cache_prior", {"lambda_": 1.0, "top_j": 0, **CACHE}))
    assert near.counters.misses <= own.counters.misses
    free = any(layer.selection.groups is None for layer in subject.anatomy.layers.values())
    assert not free or near.counters.misses < 0.9 * own.counters.misses  # groups leave the tiny one no choice


def test_a_cache_that_is_not_the_stores_is_refused(subject):
    policy = make_routing("cache_prior", {"slots": 6})
    with pytest.raises(UserError, match="cache of 6 experts a layer, the store has 5 slots"):
        StoreRouting(subject.anatomy, subject.layers, policy, slots=SLOTS)


def test_a_measurement_under_a_policy_counts_its_misses(subject, monkeypatch):
    monkeypatch.setattr("backend.decoding.expert_latency.Contention.share", lambda self: 0.0)
    policy = make_routing("cache_prior", {"lambda_": 1.0, "top_j": 0, **CACHE})
    routing = StoreRouting(subject.anatomy, subject.layers, policy, slots=SLOTS)
    *_, result = measure_store(
        subject.model, subject.layers, subject.file, IDS, StoreSettings(SLOTS),
        prompt=10, warm_up=6, rounds=2, routing=routing,
    )  # fmt: skip
    first, *others = [each.did for each in result.rounds]
    assert [each.misses for each in others] == [first.misses]  # each round is a new sequence
    store, _ = subject.served(policy)
    assert first.accesses == 84 * len(store.trace) * len(store.trace[0][0])
    timed = sum(simulate(ExpertTrace.from_lists(layer, 8), SLOTS).misses[16:].sum() for layer in store.trace)
    assert first.misses == timed


def test_reading_ahead_changes_neither_output_nor_misses(subject, monkeypatch):
    policy = make_routing("original", {})
    plain, expected = subject.served(policy)
    ahead, logits = subject.served(policy, prefetch=True)
    assert torch.equal(logits, expected)
    assert ahead.trace == plain.trace
    assert ahead.counters.misses == plain.counters.misses
    did, stride = ahead.counters, subject.file.layers[0].stride
    guesses = read_guesses(subject.anatomy.layers, lambda: subject.simulated(policy))
    assert did.guessed / did.guessable == pytest.approx(guesses.recall(), abs=0.01)
    assert 0 < did.taken_ahead <= min(did.misses, did.read_ahead)
    assert did.bytes_read == (did.misses - did.taken_ahead + did.read_ahead) * stride


def test_reading_ahead_is_measured(subject, monkeypatch):
    monkeypatch.setattr("backend.decoding.expert_latency.Contention.share", lambda self: 0.0)
    policy = make_routing("original", {})
    routing = StoreRouting(subject.anatomy, subject.layers, policy, slots=SLOTS, prefetch=True)
    *_, result = measure_store(
        subject.model, subject.layers, subject.file, IDS, StoreSettings(SLOTS, prefetch=True),
        prompt=10, warm_up=6, rounds=1, routing=routing,
    )  # fmt: skip
    value = {each["metric"]: each["value"] for each in result.measurements(4)}
    assert 0 < value["guess_recall"] <= 1
    assert 0 < value["read_ahead_share"] <= 1
    assert value["wasted_loads_per_token"] >= 0
    assert "load_bytes_per_s" not in value  # reads that nobody waits for have no rate
