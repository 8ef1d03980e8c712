"""A store of experts computes what the model computes, and misses what the simulation misses."""

from __future__ import annotations

import pytest
import torch

from backend.decoding.expert_file import store_experts
from backend.decoding.expert_latency import check_arithmetic
from backend.decoding.expert_layers import experts_per_token, find_expert_layers
from backend.decoding.expert_store import AllResident, ExpertStore
from backend.errors import UserError
from backend.residency import ExpertTrace, miss_curve_of, simulate
from tests.models_tiny import tiny_model
from tests.moe_tiny import tiny_moe

FAMILIES = ("qwen2_moe", "mixtral", "olmoe", "deepseek_v3", "granitemoe", "gpt_oss", "phimoe")
IDS = torch.randint(3, 120, (1, 40), generator=torch.Generator().manual_seed(1))
SLOTS = 5


class Subject:
    """A tiny model with its experts on disk, and the logits of its own eager experts."""

    def __init__(self, family, folder, dtype=torch.float32):
        self.model = tiny_moe(family, dtype=None if dtype == torch.float32 else dtype)
        self.model.set_experts_implementation("eager")
        self.layers = find_expert_layers(self.model)
        self.file = store_experts(self.layers, folder)
        self.k = experts_per_token(self.model)
        self.stock = self.logits()

    def logits(self, ids=IDS):
        with torch.inference_mode():
            return self.model(ids).logits

    def store(self, slots=SLOTS, **how):
        return ExpertStore(self.model, self.layers, self.file, slots=slots, keep_trace=True, **how)

    def decode(self, ids=IDS):
        cache, rows = None, []
        with torch.inference_mode():
            for token in ids[0]:
                out = self.model(token.view(1, 1), past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                rows.append(out.logits[0, -1])
        return torch.stack(rows)[None]


@pytest.fixture(scope="module", params=FAMILIES)
def subject(request, tmp_path_factory):
    return Subject(request.param, tmp_path_factory.mktemp("experts"))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return Subject("qwen2_moe", tmp_path_factory.mktemp("experts"))


def traces(store, size):
    return [ExpertTrace.from_lists(layer, size) for layer in store.trace]


@pytest.mark.parametrize("eviction", ["lru", "lfu", "random"])
def test_logits_are_the_models_and_misses_the_simulations(subject, eviction):
    store = subject.store(eviction=eviction, seed=3)
    with store:
        got = subject.logits()
    assert torch.allclose(got, subject.stock, rtol=0, atol=1e-5)
    curves = [
        miss_curve_of(trace, eviction, seed=3 + i)
        for i, trace in enumerate(traces(store, subject.layers[0].experts))
    ]
    assert store.counters.misses == sum(curve.misses(SLOTS) for curve in curves)
    assert store.counters.accesses == sum(curve.accesses for curve in curves)
    assert 0 < store.counters.misses < store.counters.accesses
    stride = subject.file.layers[0].stride
    assert store.counters.bytes_read == store.counters.misses * stride
    store.close()


def test_token_by_token_is_the_same_as_all_at_once(subject):
    at_once, stepwise = subject.store(), subject.store()
    with at_once:
        subject.logits()
    with stepwise:
        got = subject.decode()
    assert torch.allclose(got, subject.stock, rtol=0, atol=1e-4)
    assert stepwise.trace == at_once.trace
    assert stepwise.counters.misses == at_once.counters.misses
    for store in (at_once, stepwise):
        store.close()


def test_the_model_has_its_own_experts_back(subject):
    before = subject.model.get_experts_implementation()
    with subject.store():
        assert subject.model.get_experts_implementation() != before
    assert subject.model.get_experts_implementation() == before
    assert torch.equal(subject.logits(), subject.stock)


def test_a_global_cache_shares_its_slots(qwen):
    store = qwen.store(slots=SLOTS, scope="global")
    with store:
        got = qwen.decode()
    assert torch.allclose(got, qwen.stock, rtol=0, atol=1e-4)
    size = qwen.layers[0].experts
    batches = [
        [layer * size + expert for expert in store.trace[layer][t]]
        for t in range(IDS.shape[1])
        for layer in range(len(qwen.layers))
    ]
    trace = ExpertTrace.from_lists(batches, len(qwen.layers) * size)
    assert store.counters.misses == simulate(trace, SLOTS, "lru").misses.sum()
    held = sum(int(store.resident(layer).sum()) for layer in range(len(qwen.layers)))
    assert held == SLOTS
    store.close()


def test_what_is_resident_can_be_seen(qwen):
    store = qwen.store()
    with store:
        qwen.logits()
    for layer, trace in enumerate(traces(store, qwen.layers[0].experts)):
        assert store.resident(layer).tolist() == simulate(trace, SLOTS).resident.astype(int).tolist()
    store.close()


def test_a_cache_of_all_experts_loads_each_once(qwen):
    store = qwen.store(slots=99)
    with store:
        qwen.logits()
        first = store.counters
        qwen.logits()
    assert first.misses == sum(
        len({e for token in layer[: IDS.shape[1]] for e in token}) for layer in store.trace
    )
    assert (store.counters - first).misses == 0
    store.close()


def test_reads_at_once_change_nothing(qwen):
    one, four = qwen.store(), qwen.store(readers=4)
    logits = []
    for store in (one, four):
        with store:
            logits.append(qwen.logits())
        store.close()
    assert torch.equal(*logits)
    assert one.counters.bytes_read == four.counters.bytes_read


def test_half_precision(tmp_path):
    subject = Subject("qwen2_moe", tmp_path, torch.bfloat16)
    store = subject.store()
    with store:
        got = subject.logits()
    assert torch.allclose(got.float(), subject.stock.float(), atol=0.1)
    assert subject.file.layers[0].used == subject.layers[0].weights * 2
    store.close()


def test_all_resident_is_the_same_arithmetic(subject):
    resident = AllResident(subject.model, subject.layers)
    check_arithmetic(resident, subject.layers)
    with resident:
        got = subject.logits()
    assert torch.allclose(got, subject.stock, rtol=0, atol=1e-5)
    store = subject.store()
    with store:
        assert torch.equal(subject.logits(), got)
    store.close()


def test_arithmetic_that_is_not_known_is_refused(tmp_path):
    subject = Subject("qwen2_moe", tmp_path)
    resident = AllResident(subject.model, subject.layers)
    subject.layers[1].module.act_fn = torch.nn.ReLU()  # behind the step's back
    with pytest.raises(UserError, match=r"layers\.1.* does not know"):
        check_arithmetic(resident, subject.layers)


def test_fewer_slots_than_a_token_uses_are_refused(qwen):
    with pytest.raises(UserError, match=rf"{qwen.k - 1} slots cannot hold the {qwen.k} experts"):
        qwen.store(slots=qwen.k - 1)


def test_belady_needs_the_future(qwen):
    with pytest.raises(UserError, match="cannot know"):
        qwen.store(eviction="belady")


def test_two_stores_at_once_are_refused(qwen):
    with qwen.store(), pytest.raises(UserError, match="another store already"), qwen.store():
        pass
    assert torch.equal(qwen.logits(), qwen.stock)


def test_a_dense_model_and_a_foreign_mixture_are_refused():
    model, _ = tiny_model("llama")
    with pytest.raises(UserError, match="has no routed experts"):
        find_expert_layers(model)
    with pytest.raises(UserError, match="do not run through transformers' experts interface"):
        find_expert_layers(tiny_moe("llama4_text"))
