"""Lifetimes against a slow reference: a set, a dictionary, and the eviction rules written down again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.residency import (
    EVICTIONS,
    ExpertTrace,
    Lifetimes,
    RoutingRecord,
    lifetimes,
    lifetimes_in,
    simulate,
)
from backend.residency.lifetimes import stays_of
from backend.residency.step_kernels import draw
from tests.residency.reference import ReferenceCache, members_of, next_uses
from tests.residency.strategies import expert_traces

RULES = st.sampled_from(EVICTIONS)


def reference_stays(trace, capacity, rule):
    """(loaded at, evicted at) of every stay; evicted at T: still there."""
    cache = ReferenceCache(capacity, rule, ranked=True, draws=lambda t, i: int(draw(0, t, i)))
    tokens, since, found = members_of(trace), {}, []
    for t, (members, uses) in enumerate(zip(tokens, next_uses(tokens), strict=True)):
        before = set(cache.cache)
        cache.access(members, None, uses)
        for expert in before - cache.cache:
            found.append((since.pop(expert), t))
        since |= dict.fromkeys(cache.cache - before, t)
    return sorted([*found, *((t, trace.tokens) for t in since.values())])


@settings(max_examples=120, deadline=None)
@given(expert_traces(), RULES, st.integers(0, 5))
def test_stays_are_those_of_the_reference(trace, rule, spare):
    capacity = max(1, int(trace.counts.max()) + spare)
    found = stays_of(trace, capacity, rule)
    pairs = sorted(zip(found.loaded_at.tolist(), found.evicted_at.tolist(), strict=True))
    assert pairs == reference_stays(trace, capacity, rule)


@settings(max_examples=80, deadline=None)
@given(expert_traces(), RULES, st.integers(0, 5))
def test_every_miss_is_a_load_and_what_is_left_is_resident(trace, rule, spare):
    capacity = max(1, int(trace.counts.max()) + spare)
    walk, found = simulate(trace, capacity, rule), stays_of(trace, capacity, rule)
    assert len(found.loaded_at) == walk.misses.sum() == (~found.hits).sum()
    assert (found.evicted_at == trace.tokens).sum() == walk.resident.sum()
    # Every resident expert's every token belongs to one stay: they add up to the cache's content over time.
    summed = lifetimes([trace], capacity, rule)
    lived = ((summed.ended + summed.censored) * np.arange(len(summed.ended))).sum()
    assert lived == (found.evicted_at - found.loaded_at).sum()
    assert summed.loads == walk.misses.sum()


def test_survival_takes_what_is_still_there_as_lost_sight_of_not_as_ended():
    """By hand: 4 stays; one ends at 1, one is censored at 1, one ends at 3, one is censored at 5."""
    found = Lifetimes(np.array([0, 1, 0, 1, 0, 0]), np.array([0, 1, 0, 0, 0, 1]))
    assert found.survival().tolist() == pytest.approx([1, 3 / 4, 3 / 4, 3 / 8, 3 / 8, 3 / 8])
    assert found.median() == 3
    assert found.censored_share == 0.5
    assert Lifetimes(np.array([0, 1]), np.array([0, 3])).median() is None


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_without_censoring_survival_is_the_share_that_is_left(ages):
    found = Lifetimes(np.bincount(ages, minlength=10), np.zeros(10, int))
    for days in range(10):
        assert found.survival()[days] == pytest.approx(sum(age > days for age in ages) / len(ages))


def test_a_record_adds_layers_and_sequences_and_counts_late_loads_when_warm():
    rng = np.random.default_rng(3)
    traces = {
        layer: ExpertTrace.from_lists([rng.permutation(8)[:2] for _ in range(30)], 8) for layer in (0, 5)
    }
    record = RoutingRecord.of(traces, lengths=(10, 20))
    whole = lifetimes_in(record, 4, "lru")
    assert whole.loads == record.curve("lru", "cold").misses(4)
    assert lifetimes_in(record, 4, "lru", "warm").loads == record.curve("lru", "warm").misses(4)
    each = [lifetimes_in(record, 4, "lru", place=place) for place in (0, 1)]
    assert sum(found.loads for found in each) == whole.loads
    assert (each[0] + each[1]).ended.tolist() == whole.ended.tolist()


def test_a_cache_too_small_for_a_token_is_a_sentence():
    trace = ExpertTrace.from_lists([[0, 1, 2]], 4)
    with pytest.raises(UserError, match="cannot serve a token that uses 3"):
        lifetimes([trace], 2)
