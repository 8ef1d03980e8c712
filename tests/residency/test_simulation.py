"""One cache over a trace, against the slow reference; what the update rule says in particular."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.residency import EVICTIONS, ExpertTrace, MaskTrace, simulate
from backend.residency.step_kernels import draw
from tests.residency.reference import reference_misses
from tests.residency.strategies import expert_traces, mask_traces

RULES = st.sampled_from(EVICTIONS)
SEED = 5


def draws(t, i):
    return int(draw(SEED, t, i))


@settings(max_examples=150, deadline=None)
@given(mask_traces(), RULES, st.integers(0, 12))
def test_one_cache_equals_the_reference(trace, rule, capacity):
    got = simulate(trace, capacity, rule, seed=SEED)
    assert got.misses.tolist() == reference_misses(trace, capacity, rule, draws)
    assert got.resident.sum() <= capacity


@settings(max_examples=100, deadline=None)
@given(expert_traces(), RULES, st.integers(0, 4))
def test_one_cache_of_experts_equals_the_reference(trace, rule, spare):
    capacity = int(trace.counts.max()) + spare
    assert simulate(trace, capacity, rule, seed=SEED).misses.tolist() == reference_misses(
        trace, capacity, rule, draws
    )


def test_hits_are_counted_with_the_old_cache():
    """The order trap: loading first and counting after would make every access a hit."""
    trace = MaskTrace.from_masks([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
    assert simulate(trace, 2, "lru").misses.tolist() == [2, 2, 2]
    assert simulate(trace, 4, "lru").misses.tolist() == [2, 2, 0]


def test_a_token_larger_than_the_cache_keeps_its_hits_and_loads_by_falling_score():
    masks = [[1, 1, 0, 0, 0], [0, 1, 1, 1, 1]]
    scores = np.array([[1, 1, 0, 0, 0], [0, 1, 2, 4, 3]], np.float32)
    resident = simulate(MaskTrace.from_masks(masks, scores), 3, "lru").resident
    assert resident.tolist() == [False, True, False, True, True]
    by_index = simulate(MaskTrace.from_masks(masks), 3, "lru").resident
    assert by_index.tolist() == [False, True, True, True, False]


def test_lfu_counts_outlive_eviction():
    # Entry 0, used three times, is pushed out by a token of two; back again, its count outlasts entry 3.
    trace = MaskTrace.from_masks(
        [[1, 0, 0, 0]] * 3 + [[0, 1, 1, 0]] + [[1, 0, 0, 0]] + [[0, 0, 0, 1]] + [[1, 0, 0, 0]]
    )
    assert simulate(trace, 2, "lfu").misses.tolist() == [1, 0, 0, 2, 1, 1, 0]


def test_ties_go_to_the_lower_index():
    trace = MaskTrace.from_masks([[1, 1, 1, 0], [0, 0, 0, 1]])
    for rule in ("lru", "lfu", "belady"):
        assert simulate(trace, 3, rule).resident[:2].tolist() == [True, True]


def test_the_last_rank_of_a_token_is_the_most_recent_expert():
    trace = ExpertTrace.from_lists([[0, 1], [2, 3]], 4)
    assert simulate(trace, 3, "lru").resident.tolist() == [False, True, True, True]


def test_random_eviction_depends_on_its_seed_alone():
    masks = np.random.default_rng(0).random((60, 24)) < 0.3
    trace = MaskTrace.from_masks(masks)
    first = simulate(trace, 10, "random", seed=1).misses
    assert (first == simulate(trace, 10, "random", seed=1).misses).all()
    assert (first != simulate(trace, 10, "random", seed=2).misses).any()


def test_random_draws_are_spread_evenly():
    found = np.array([draw(3, t, i) for t in range(40) for i in range(100)]) / 2**40
    assert abs(found.mean() - 0.5) < 0.02
    assert np.histogram(found, bins=10, range=(0, 1))[0].min() > 300
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05


def test_a_cache_that_cannot_serve_a_token_of_experts_is_refused_in_a_sentence():
    trace = ExpertTrace.from_lists([[0, 1, 2]], 4)
    with pytest.raises(UserError, match="A cache of 2 experts cannot serve a token that uses 3"):
        simulate(trace, 2)
    with pytest.raises(UserError, match="-1 slots"):
        simulate(trace, -1)
    with pytest.raises(UserError, match="no eviction rule 'lur'; did you mean 'lru'"):
        simulate(trace, 3, "lur")


def test_traces_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="between 0 and 3"):
        ExpertTrace.from_lists([[0, 4]], 4)
    with pytest.raises(ValueError, match="must differ"):
        ExpertTrace.from_lists([[1, 1]], 4)
    with pytest.raises(ValueError, match="rows must be"):
        MaskTrace(np.zeros((3, 2), np.uint8), 8)
