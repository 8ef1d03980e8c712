"""LLM in a flash: windows against a slow reference; bundles change reads, never bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.residency import (
    MaskTrace,
    expert_layout,
    input_layout,
    neuron_layout,
    simulate_window,
    window_curve,
)
from tests.residency.strategies import expert_traces, mask_traces


def reference_window(trace, window):
    """Union of the last ``window`` masks, as a set; loaded is what is not in it."""
    tokens = [set(each.tolist()) for each in trace.members()]
    misses, resident = [], []
    for t, wanted in enumerate(tokens):
        before = set().union(*tokens[max(0, t - window) : t])
        misses.append(len(wanted - before))
        resident.append(len(set().union(*tokens[max(0, t - window + 1) : t + 1])))
    return misses, resident


@settings(max_examples=100, deadline=None)
@given(st.one_of(mask_traces(), expert_traces()))
def test_every_window_length_equals_the_reference(trace):
    curve = window_curve(trace)
    for window in range(1, trace.tokens + 1):
        misses, resident = reference_window(trace, window)
        assert curve.misses[window] == sum(misses)
        assert curve.mean_resident[window] == pytest.approx(np.mean(resident))
        walk = simulate_window(trace, window)
        assert walk.misses.tolist() == misses
        assert walk.resident.tolist() == resident
    assert curve.misses[0] == curve.accesses
    assert curve.misses[trace.tokens] == curve.first_uses


@given(mask_traces())
def test_a_longer_window_takes_more_memory_and_misses_less(trace):
    curve = window_curve(trace)
    assert (np.diff(curve.misses) <= 0).all()
    assert (np.diff(curve.mean_resident) >= -1e-9).all()
    assert curve.miss_rate(10**6) == pytest.approx(curve.first_uses / max(1, curve.accesses))


def test_a_window_has_at_least_one_token():
    with pytest.raises(ValueError, match="at least one token"):
        simulate_window(MaskTrace.from_masks([[1]]), 0)


def test_a_bundle_is_one_read_of_three_rows_and_columns():
    apart, together = neuron_layout(4096), neuron_layout(4096, bundled=True)
    assert (apart.reads_per_entry, together.reads_per_entry) == (3, 1)
    assert apart.bytes_per_entry(4) == together.bytes_per_entry(4) == 3 * 4096 / 2
    assert together.read_bytes(4) == 3 * apart.read_bytes(4)


def test_read_sizes_of_llama_3_8b_at_4_bits():
    """specs/dip.md: 7.2 KB for a column of up or gate, 2.0 KB for one of down."""
    assert input_layout(14336).read_bytes(4) == 7168
    assert neuron_layout(4096, ("down",)).read_bytes(4) == 2048
    assert input_layout(14336, bundled=True).read_bytes(4) == 2 * 7168
    assert expert_layout(2048, 768).bytes_per_entry(4) == 3 * 2048 * 768 / 2
