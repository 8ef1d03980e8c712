"""Timing a store: three sides in turns, and figures that add up."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from backend.decoding import expert_latency
from backend.decoding.direct_reader import BYPASSES
from backend.decoding.direct_reader import _lies_in_memory as lies_in_memory
from backend.decoding.expert_file import store_experts
from backend.decoding.expert_latency import DecodedSide, StoreSettings, measure_store
from backend.decoding.expert_layers import find_expert_layers
from backend.decoding.expert_store import ExpertStore
from backend.errors import UserError
from tests.moe_tiny import tiny_moe

IDS = torch.randint(3, 120, (90,), generator=torch.Generator().manual_seed(7))
PROMPT, WARM_UP = 16, 4
pytestmark = pytest.mark.usefixtures("stores_in_memory")


@pytest.fixture(scope="module")
def model():
    return tiny_moe("qwen2_moe")


@pytest.fixture(scope="module")
def layers(model):
    return find_expert_layers(model)


@pytest.fixture(scope="module")
def file(layers, tmp_path_factory):
    return store_experts(layers, tmp_path_factory.mktemp("experts"))


def timed(model, layers, file, rounds=2, slots=5, **how):
    settings = StoreSettings(slots)
    return list(
        measure_store(
            model, layers, file, IDS, settings, prompt=PROMPT, warm_up=WARM_UP, rounds=rounds, **how
        )
    )


def test_a_measurement_says_what_was_read_and_waited_for(model, layers, file):
    *_, result = timed(model, layers, file)
    found = {each["metric"]: each for each in result.measurements(4)}
    assert {each["how"] for each in found.values()} == {"measured"}
    value = {name: each["value"] for name, each in found.items()}
    assert found["ms_per_token_median"]["n"] == 2 * 70
    assert value["ms_per_token_p10"] <= value["ms_per_token_median"] <= value["ms_per_token_p90"]
    assert value["experts_per_token"] == 4
    assert value["miss_rate"] == pytest.approx(value["misses_per_token"] / (3 * 4))  # 3 layers
    assert value["loaded_bytes_per_token"] == pytest.approx(value["misses_per_token"] * file.layers[0].stride)
    assert value["load_bytes_per_s"] == pytest.approx(
        value["loaded_bytes_per_token"] / value["waiting_ms"] * 1e3
    )
    assert 0 < value["waiting_share"] < 1
    assert value["cached_share"] == 5 / 8
    assert value["slot_bytes"] == 3 * 5 * file.layers[0].stride
    assert value["experts_bytes"] == sum(each.experts * each.expert_bytes for each in layers)
    if not lies_in_memory(file.path):
        assert BYPASSES[int(value["page_cache_bypass"])] in ("O_DIRECT", "F_NOCACHE", "posix_fadvise")
    assert len(result.windows["speed_of_resident"]) == 2
    assert found["ms_per_token_median"]["stderr"] is not None


def test_timed_tokens_miss_what_a_plain_walk_of_the_text_misses(model, layers, file):
    *_, result = timed(model, layers, file, rounds=1)
    with ExpertStore(model, layers, file, slots=5) as store:
        side = DecodedSide(model, lambda: _nothing())
        side.feed(IDS[: PROMPT + WARM_UP].tolist())
        before = store.counters
        side.feed(IDS[PROMPT + WARM_UP :].tolist())
        expected = store.counters - before
    store.close()
    did = result.rounds[0].did
    assert (did.batches, did.accesses, did.misses) == (expected.batches, expected.accesses, expected.misses)
    assert did.batches == 70 * 3


def test_the_three_sides_take_turns(model, layers, file, monkeypatch):
    turns = []
    feed = DecodedSide.feed

    def noted(self, tokens):
        turns.append((id(self), list(tokens)))
        return feed(self, tokens)

    monkeypatch.setattr(DecodedSide, "feed", noted)
    monkeypatch.setattr(expert_latency.Contention, "share", lambda self: 0.0)
    timed(model, layers, file, rounds=1)
    prompt, warm_up, rest = turns[0], turns[1:4], turns[4:]
    assert prompt[1] == IDS[:PROMPT].tolist()  # the store reads it token by token
    sides = [side for side, _ in warm_up]
    assert len(set(sides)) == 3
    for first in range(0, len(rest), 3):
        turn = rest[first : first + 3]
        assert {side for side, _ in turn} == set(sides)
        assert len({tuple(tokens) for _, tokens in turn}) == 1
    assert [side for side, _ in rest[:4]] == [*sides, sides[1]]  # each turn begins with another side
    fed = [token for side, tokens in rest if side == sides[0] for token in tokens]
    assert fed == IDS[PROMPT + WARM_UP :].tolist()


def test_a_disturbed_round_is_tried_again(model, layers, file, monkeypatch):
    shares = iter([0.5, 0.3, 0.4, 0.01])
    monkeypatch.setattr(expert_latency.Contention, "share", lambda self: next(shares))
    *_, result = timed(model, layers, file)
    assert [each.others for each in result.rounds] == [0.3, 0.01]
    value = {each["metric"]: each["value"] for each in result.measurements(4)}
    assert value["disturbed_rounds"] == 1


def test_routing_sees_the_store_and_only_its_side(model, layers, file, monkeypatch):
    monkeypatch.setattr(expert_latency.Contention, "share", lambda self: 0.0)
    seen = []

    def routing(store):
        @contextmanager
        def turn():
            seen.append(int(store.resident(0).sum()))
            yield

        return turn

    timed(model, layers, file, rounds=1, routing=routing)
    assert seen[0] == 0  # the prompt begins with empty caches
    assert seen[-1] == 5
    assert len(seen) == 1 + 1 + 9  # prompt, warm-up, 70 tokens in turns of eight


def test_between_rounds_the_model_is_untouched(model, layers, file):
    before = model.get_experts_implementation()
    with torch.inference_mode():
        expected = model(IDS[None]).logits
        for _ in measure_store(
            model, layers, file, IDS, StoreSettings(5), prompt=PROMPT, warm_up=WARM_UP, rounds=2
        ):
            assert model.get_experts_implementation() == before
            assert torch.equal(model(IDS[None]).logits, expected)


def test_a_home_in_memory_is_refused(model, layers, file, monkeypatch):
    monkeypatch.setattr("backend.decoding.direct_reader._lies_in_memory", lambda path: True)
    with pytest.raises(UserError, match=r"lies in memory \(tmpfs\)"):
        timed(model, layers, file)


@contextmanager
def _nothing():
    yield
