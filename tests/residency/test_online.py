"""A cache that is walked as a model runs misses what the simulation of its accesses misses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.residency import OnlineCache, miss_curve_of, simulate
from tests.residency.strategies import expert_traces


@settings(max_examples=150, deadline=None)
@given(expert_traces(), st.sampled_from(["lru", "lfu", "random"]), st.integers(0, 4))
def test_step_by_step_is_the_simulated_walk(trace, rule, spare):
    capacity = max(1, int(trace.counts.max()) + spare)
    cache = OnlineCache(trace.size, capacity, rule, seed=5)
    held: set[int] = set()
    misses = []
    for members in trace.members():
        step = cache.access(members)
        assert set(step.loaded) == set(members) - held
        assert set(step.evicted) <= held - set(members)
        held = (held | set(step.loaded)) - set(step.evicted)
        assert set(np.flatnonzero(cache.resident)) == held
        assert len(held) <= capacity
        misses.append(len(step.loaded))
    assert misses == simulate(trace, capacity, rule, seed=5).misses.tolist()
    assert sum(misses) == miss_curve_of(trace, rule, seed=5).misses(capacity)


def test_loads_come_in_the_order_of_access():
    cache = OnlineCache(6, 3)
    assert cache.access(np.array([4, 1])).loaded.tolist() == [4, 1]
    step = cache.access(np.array([5, 1, 0]))
    assert (step.loaded.tolist(), step.evicted.tolist()) == ([5, 0], [4])


@pytest.mark.parametrize(
    ("capacity", "rule", "sentence"),
    [(2, "belady", "cannot know"), (0, "lru", "cannot have 0 slots"), (2, "lur", "did you mean 'lru'")],
)
def test_what_cannot_be_is_said(capacity, rule, sentence):
    with pytest.raises(UserError, match=sentence):
        OnlineCache(4, capacity, rule)


def test_a_token_of_more_experts_than_slots_is_refused():
    with pytest.raises(UserError, match="cache of 2 experts cannot serve a token that uses 3"):
        OnlineCache(4, 2).access(np.array([0, 1, 2]))
