import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.evaluation.statistics import estimate

VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=30)


@given(VALUES, st.integers(1, 1000))
def test_with_equal_counts_it_is_the_textbook_standard_error(values, count):
    got = estimate(values, [count] * len(values))
    assert got.value == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert got.stderr == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-9)
    assert got.n == count * len(values)


def test_the_mean_is_over_tokens_not_over_windows():
    assert estimate([1.0, 4.0], [3, 1]).value == pytest.approx(7 / 4)


def test_one_window_has_no_standard_error():
    assert estimate([2.5], [10]).stderr is None


@given(VALUES)
def test_paired_differences_ignore_what_windows_have_in_common(values):
    """A method that costs every window the same has no error, however much the windows differ."""
    shifted = [v + 0.125 for v in values]
    difference = estimate([b - a for a, b in zip(values, shifted, strict=True)], [7] * len(values))
    assert difference.value == pytest.approx(0.125)
    assert difference.stderr == pytest.approx(0, abs=1e-9)
