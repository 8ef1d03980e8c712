"""The figures re-derived in specs/dip.md with the paper's simulator (arXiv 2412.01380), in paper mode."""

from __future__ import annotations

import pytest

from backend.devices import (
    SHAPES,
    HitLaw,
    Precision,
    Simulation,
    SimulatorSettings,
    footprint,
    simulate,
)
from backend.sparsity import make_policy

PAPER = SimulatorSettings.paper()
DENSE = make_policy("dense", {})


def dense(shape: str, dram_gb: float, settings: SimulatorSettings = PAPER) -> float:
    return simulate("apple-a18", shape, dram_gb, DENSE, settings=settings).tokens_per_s


def dip(density: float, law: HitLaw, dram_gb: float = 4.0, **changes: object) -> Simulation:
    policy = make_policy("dip", {"density": density})
    settings = SimulatorSettings.paper(**changes)
    return simulate("apple-a18", "phi-3-medium", dram_gb, policy, hits=law, settings=settings)


def test_phi_3_medium_takes_7_354_gb():
    size = footprint(SHAPES["phi-3-medium"], Precision(), 2048)
    assert size.mlp / 1e9 == pytest.approx(5.505, abs=5e-4)
    assert size.static / 1e9 == pytest.approx(1.849, abs=5e-4)
    assert size.total / 1e9 == pytest.approx(7.354, abs=5e-4)


def test_a_cap_of_4_gb_is_45_6_percent_less():
    assert dip(0.5, "uniform").memory_saved == pytest.approx(0.456, abs=5e-4)


@pytest.mark.parametrize(
    ("shape", "dram_gb", "tokens_per_s"),
    [
        ("phi-3-medium", 4.0, 0.293),
        ("llama-3-8b", 3.0, 0.580),
        ("llama-3-8b", 4.0, 1.351),
        ("mistral-7b", 2.0, 0.521),
        ("mistral-7b", 3.0, 1.070),
        ("phi-3-mini", 1.5, 1.072),
        ("phi-3-mini", 2.0, 2.265),
    ],
)
def test_dense_streaming(shape: str, dram_gb: float, tokens_per_s: float):
    assert dense(shape, dram_gb) == pytest.approx(tokens_per_s, abs=6e-4)


def test_one_row_of_the_embedding_in_place_of_the_table():
    assert dense("llama-3-8b", 4.0, SimulatorSettings()) == pytest.approx(1.367, abs=5e-4)


def test_forty_percent_more_needs_a_density_of_0_7_to_0_82():
    """0.7 for a cache that finds its share of what is read, 0.82 for one that always finds what it holds."""
    assert density_for_speedup(1.4, "uniform") == pytest.approx(0.71, abs=0.015)
    assert density_for_speedup(1.4, "best") == pytest.approx(0.82, abs=0.005)


def density_for_speedup(speedup: float, law: HitLaw) -> float:
    low, high = 0.3, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if dip(middle, law).speedup > speedup else (low, middle)
    return low


def test_at_keep_one_half_uniform_caches_never_hold_all_of_up_and_gate():
    """ρ_in = 0.57 is above the cached fraction 0.39; the better split does something about it."""
    uniform = dip(0.5, "best")
    assert uniform.cached_share_by_site["mlp_in"] == pytest.approx(0.39, abs=0.005)
    assert uniform.hit_rate_by_site["mlp_in"] == pytest.approx(0.39 / 0.574, abs=0.005)
    assert uniform.hit_rate_by_site["mlp_mid"] == pytest.approx(1.0, abs=1e-3)
    better = dip(0.5, "best", split="optimised")
    assert better.tokens_per_s > 1.1 * uniform.tokens_per_s


def test_the_dense_model_is_dip_at_density_1_with_the_best_cache():
    assert dip(1.0, "best", start="warm").tokens_per_s == pytest.approx(dense("phi-3-medium", 4.0), rel=1e-3)


def test_hit_rates_measured_elsewhere():
    """Densities and hit rates recorded on a model that runs here, on a shape that does not."""
    policy = make_policy("dip", {"input_keep": 0.5, "neuron_keep": 0.25})
    found = simulate(
        "apple-a18", "phi-3-medium", 4.0, policy, hits={"mlp_in": 0.6, "mlp_mid": 0.8}, settings=PAPER
    )
    mlp = 5.50502400e9
    hit = mlp / 3 * (2 * 0.5 * 0.6 + 0.25 * 0.8)
    miss = mlp / 3 * (2 * 0.5 * 0.4 + 0.25 * 0.2)
    static = (1.84877056e9 - 0.2097152e9 / 2) / 60e9
    assert 1 / found.tokens_per_s == pytest.approx(static + hit / 60e9 + miss / 1e9, rel=1e-9)
    assert found.mlp_density == pytest.approx(1.25 / 3)
