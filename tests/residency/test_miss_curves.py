"""Every size at once: against one cache a size, and the identities that hold between sizes and rules."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.residency import EVICTIONS, MaskTrace, MissCurve, miss_curve_of, simulate, total
from backend.residency.step_kernels import draw
from tests.residency.reference import reference_misses
from tests.residency.strategies import expert_traces, mask_traces

RULES = st.sampled_from(EVICTIONS)
ANY_TRACE = st.one_of(mask_traces(), expert_traces())
SEED = 5


@settings(max_examples=60, deadline=None)
@given(mask_traces(), RULES)
def test_every_size_equals_the_reference_run_at_that_size(trace, rule):
    curve = miss_curve_of(trace, rule, seed=SEED)
    for capacity in range(trace.size + 1):
        slow = reference_misses(trace, capacity, rule, lambda t, i: int(draw(SEED, t, i)))
        assert curve.misses(capacity) == sum(slow), capacity


@settings(max_examples=60, deadline=None)
@given(ANY_TRACE, RULES, st.data())
def test_every_size_equals_one_cache_of_that_size_also_after_a_warm_start(trace, rule, data):
    counted = np.array(data.draw(st.lists(st.booleans(), min_size=trace.tokens, max_size=trace.tokens)))
    curve = miss_curve_of(trace, rule, counted=counted, seed=SEED)
    assert curve.accesses == trace.counts[counted].sum()
    assert curve.tokens == counted.sum()
    for capacity, rate in curve.miss_rates().items():
        misses = simulate(trace, capacity, rule, seed=SEED).misses[counted].sum()
        assert rate == pytest.approx(misses / max(1, curve.accesses))


@settings(max_examples=60, deadline=None)
@given(ANY_TRACE, RULES)
def test_more_slots_never_miss_more_and_all_slots_miss_first_uses_only(trace, rule):
    curve = miss_curve_of(trace, rule)
    assert (np.diff(curve.hits) >= 0).all()
    assert curve.misses(trace.size) == curve.misses(trace.size + 9) == curve.first_uses
    assert curve.first_uses == len({int(i) for each in trace.members() for i in each})
    assert curve.hits[0] == 0


@settings(max_examples=60, deadline=None)
@given(ANY_TRACE)
def test_belady_is_never_above_the_others(trace):
    best = miss_curve_of(trace, "belady")
    for rule in ("lru", "lfu", "random"):
        curve = miss_curve_of(trace, rule)
        assert all(best.misses(c) <= curve.misses(c) for c in range(curve.smallest, trace.size + 1))


@settings(max_examples=60, deadline=None)
@given(mask_traces(), RULES)
def test_a_smaller_caches_content_lies_inside_a_larger_ones(trace, rule):
    contents = [simulate(trace, capacity, rule, seed=SEED).resident for capacity in range(trace.size + 1)]
    for smaller, larger in pairwise(contents):
        assert not (smaller & ~larger).any()


def test_a_token_accesses_its_whole_set_at_once():
    """Walked one by one, the second access would already see the first one at the front."""
    trace = MaskTrace.from_masks([[1, 1, 0], [1, 1, 0]])
    curve = miss_curve_of(trace)
    assert [curve.misses(c) for c in range(4)] == [4, 3, 2, 2]


def test_lru_and_lfu_coincide_while_the_cache_is_no_larger_than_a_tokens_set():
    rng = np.random.default_rng(0)
    scores = rng.random((40, 20), np.float32)
    masks = scores >= np.sort(scores, axis=1)[:, [12]]
    trace = MaskTrace.from_masks(masks, scores)
    lru, lfu = miss_curve_of(trace), miss_curve_of(trace, "lfu")
    assert lru.hits[:9].tolist() == lfu.hits[:9].tolist()
    assert all(lru.hits[c] <= lru.accesses * c / 8 for c in range(9))  # the hit rate cannot exceed C/|m|


def test_curves_of_several_hooks_add_up_and_survive_json():
    rng = np.random.default_rng(1)
    curves = [miss_curve_of(MaskTrace.from_masks(rng.random((30, 12)) < 0.4)) for _ in range(3)]
    summed = total(curves)
    assert summed.misses(5) == sum(curve.misses(5) for curve in curves)
    assert summed.misses_per_token(5) == pytest.approx(summed.misses(5) / 90)
    again = MissCurve.from_json(json.loads(json.dumps(summed.as_json())))
    assert again.hits.tolist() == summed.hits.tolist()
    assert again.as_json() == summed.as_json()
    with pytest.raises(ValueError, match="different numbers"):
        total([summed, miss_curve_of(MaskTrace.from_masks([[1]]))])


def test_the_package_imports_neither_torch_nor_numba():
    code = "import backend.residency, sys; assert not {'torch', 'numba'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
