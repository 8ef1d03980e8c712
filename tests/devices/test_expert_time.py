"""The time of a token that streams experts: its parts by hand, and what may not make it slower."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.devices import DEVICES, expert_time

SIZES = st.floats(0, 1e10)
DEVICE = next(iter(DEVICES.values()))


def test_by_hand_on_the_papers_device():
    """60 GB/s DRAM, 1 GB/s Flash without a wait: 0.6 GB dense, 1.2 GB of experts, 0.1 GB of it missed."""
    time = expert_time(DEVICE, dense_bytes=6e8, used_bytes=1.2e9, missed_bytes=1e8, misses=10)
    assert (time.dense_s, time.experts_s, time.misses_s) == pytest.approx((0.01, 0.02, 0.1))
    assert time.seconds == pytest.approx(0.13)
    assert time.tokens_per_s == pytest.approx(1 / 0.13)


@given(st.sampled_from(list(DEVICES.values())), SIZES, SIZES, st.floats(1, 1e9), st.integers(0, 400))
def test_overlap_is_never_slower_and_another_miss_never_faster(device, dense, used, size, misses):
    def at(count, **more):
        return expert_time(
            device, dense_bytes=dense, used_bytes=used, missed_bytes=count * size, misses=count, **more
        )

    apart, together = at(misses), at(misses, overlap=True)
    assert together.seconds <= apart.seconds
    assert apart.seconds <= 2 * together.seconds + 1e-12
    assert at(misses + 1).seconds >= apart.seconds


def test_small_reads_are_slower_and_each_miss_waits():
    device = next(each for each in DEVICES.values() if each.flash.latency_us and len(each.flash.points) > 1)
    large = expert_time(device, dense_bytes=0, used_bytes=0, missed_bytes=8e6, misses=1).misses_s
    small = expert_time(device, dense_bytes=0, used_bytes=0, missed_bytes=8e6, misses=1000).misses_s
    assert small > large + 999e-6 * device.flash.latency_us * 0.99
    assert expert_time(device, dense_bytes=1, used_bytes=0, missed_bytes=0, misses=0).misses_s == 0
