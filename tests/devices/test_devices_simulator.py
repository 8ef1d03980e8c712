"""The simulator against a slow, obvious loop over tokens, and its properties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from backend.devices import (
    DEVICES,
    PARTS,
    HitCurve,
    ModelShape,
    RecordedHook,
    Simulator,
    SimulatorSettings,
    simulate,
    simulator_of,
)
from backend.devices.hooks import layer_at_same_depth, masked_linears, policy_keeps
from backend.errors import UserError
from backend.residency import MaskTrace, miss_curve_of
from backend.residency import simulate as run_cache
from backend.sparsity import make_policy

SHAPE = ModelShape("tiny", 8, 12, 2, 2, 1, 4, 20)
MLP_BYTES = 3 * 8 * 12 * 2 / 2
TOKENS = 24
GB = 1e9
MODES: list[dict[str, Any]] = [
    {},
    {"overlap": True},
    {"embedding_read": "table", "flash_by_read_size": False, "flash_latency": False},
    {"bundled": True},
    {"flash_latency": False, "dram_gb_per_s": 10.0, "flash_gb_per_s": 2.0},
]


def masks(seed: int) -> dict[tuple[str, int], np.ndarray]:
    """Return skewed random masks of every hook. # [T, N] each"""
    draw = np.random.default_rng(seed)
    found = {}
    for layer in range(SHAPE.layers):
        for site, entries, kept in (("mlp_in", 8, 4), ("mlp_mid", 12, 5)):
            scores = draw.random((TOKENS, entries)) + np.linspace(0, 1, entries)
            found[site, layer] = np.argsort(np.argsort(-scores, axis=1), axis=1) < kept
    return found


def lru_hits(mask: np.ndarray, capacity: int) -> list[int]:
    """Return each token's hits in an LRU cache that starts empty; C ≥ |m| or a plain cap, by hand."""
    cache: list[int] = []  # least recent first
    hits = []
    for row in mask:
        wanted = [i for i in range(len(row)) if row[i]]
        found = [i for i in wanted if i in cache]
        hits.append(len(found))
        new = [i for i in wanted if i not in found]
        idle = [i for i in cache if i not in wanted]
        room = capacity - len(found)
        loaded = new[: max(0, room)]
        idle = idle[max(0, len(idle) - (room - len(loaded))) :] if room > len(loaded) else []
        cache = idle + sorted(found + loaded)
    return hits


def recording(seed: int, warm: bool = False) -> list[RecordedHook]:
    """Return each hook's hit curve, by running a cache of every size."""
    recorded = []
    for (site, layer), mask in masks(seed).items():
        rates = [sum(lru_hits(mask, c)) / mask.sum() for c in range(mask.shape[1] + 1)]
        rates = np.maximum.accumulate(rates)
        warmed = HitCurve.by_capacity(rates / rates[-1]) if warm else None
        curve = HitCurve.by_capacity(rates)
        recorded.append(RecordedHook(site, layer, mask.shape[1], mask.sum() / TOKENS, curve, warmed))  # type: ignore[arg-type]
    return recorded


def by_the_loop(
    dram_bytes: float, options: dict[str, Any], seed: int, *, growing: bool = False
) -> list[float]:
    """Return the seconds of every token: the specification, token by token, for DIP with a uniform split."""
    device = DEVICES["snapdragon-8-gen-3"]
    dram = options.get("dram_gb_per_s", device.dram_gb_per_s) * GB
    flash_factor = options.get("flash_gb_per_s", device.flash.peak_gb_per_s) / device.flash.peak_gb_per_s
    peak = device.flash.peak_gb_per_s * flash_factor * GB
    latency = device.flash.latency_us * 1e-6 if options.get("flash_latency", True) else 0.0

    def time(in_dram: float, in_flash: float) -> float:
        return max(in_dram, in_flash) if options.get("overlap") else in_dram + in_flash

    attention, embedding, kv = 2 * (8 * 8 * 2 + 8 * 4 * 2) / 2, 20 * 8, 2 * TOKENS * 4 * 2
    static = attention + 2 * embedding + kv
    cap_per_linear = max(0.0, dram_bytes - static) / (3 * 2)
    hits = {}
    for (site, layer), mask in masks(seed).items():
        column = 12 / 2 if site == "mlp_in" else 8 / 2
        hits[site, layer] = lru_hits(mask, min(mask.shape[1], math.floor(cap_per_linear / column)))
    seconds = []
    for token in range(TOKENS):
        kv_read = kv * (token + 1) / TOKENS if growing else kv / 2
        read = attention + embedding + kv_read
        read += embedding if options.get("embedding_read") == "table" else 8
        streamed = min(max(static - dram_bytes, 0.0), read)
        total = time((read - streamed) / dram, streamed / peak)
        for (site, layer), mask in masks(seed).items():
            column, linears = (12 / 2, 2) if site == "mlp_in" else (8 / 2, 1)
            hit = hits[site, layer][token]
            miss = int(mask[token].sum()) - hit
            one_read = column * linears if options.get("bundled") else column
            rate = device.flash.gb_per_s(one_read) * flash_factor * GB
            rate = rate if options.get("flash_by_read_size", True) else peak
            total += time(
                hit * column * linears / dram, miss * column * linears / rate + latency * (miss > 0)
            )
        seconds.append(total)
    return seconds


def simulator(seed: int = 0, **options: Any) -> Simulator:
    chosen = SimulatorSettings(sequence_tokens=TOKENS, **options)
    warm = options.get("start") == "warm"
    policy = make_policy("dip", {"input_keep": 0.5, "neuron_keep": 5 / 12})
    return simulator_of("snapdragon-8-gen-3", SHAPE, policy, recorded=recording(seed, warm), settings=chosen)


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("dram_bytes", [300.0, 700.0, 800.0, 900.0, 1_100.0, 3_000.0])
def test_replay_equals_the_loop_token_by_token(options: dict[str, Any], dram_bytes: float):
    """Every mode, with static overflow (below 704 bytes), some caching, and everything resident."""
    made = simulator(1, **options)
    capacities = made._capacities(np.array([max(0.0, dram_bytes - made._static_bytes)]))[0]
    hits = np.array([lru_hits(mask, int(c)) for mask, c in zip(masks(1).values(), capacities, strict=True)]).T
    found = made.replay(hits, dram_bytes / GB)
    expected = by_the_loop(dram_bytes, options, 1, growing=True)
    np.testing.assert_allclose(found.seconds, expected, rtol=1e-12)
    assert found.tokens_per_s == pytest.approx(TOKENS / sum(expected))
    assert found.mean_of_rates_tokens_per_s >= found.tokens_per_s * (1 - 1e-12)


@pytest.mark.parametrize("options", [m for m in MODES if not m.get("overlap")])
def test_curves_equal_the_loop_in_the_mean(options: dict[str, Any]):
    """Where times add up, hit rates alone give the loop's mean time (latency apart: see the next test)."""
    sizes = [300.0, 700.0, 760.0, 800.0, 850.0, 900.0, 1_000.0, 3_000.0]
    options = options | {"flash_latency": False}
    found = simulator(2, **options).curve(np.array(sizes) / GB)
    expected = [TOKENS / sum(by_the_loop(size, options, 2)) for size in sizes]
    np.testing.assert_allclose(found.tokens_per_s, expected, rtol=1e-9)


def test_mean_hits_never_overstate_the_time_of_overlap_or_latency():
    """max is convex, so the mean's time is at most the tokens' mean; latency of rare misses the reverse."""
    options = {"overlap": True, "flash_latency": False}
    for size in (760.0, 850.0, 1_000.0):
        found = simulator(3, **options).curve(size / GB).tokens_per_s[0]
        assert found >= TOKENS / sum(by_the_loop(size, options, 3)) * (1 - 1e-9)


def test_recordings_come_from_residency():
    """The package that measures caches and the simulator that uses it mean the same by every figure."""
    for (site, layer), mask in masks(4).items():
        trace = MaskTrace.from_masks(mask, np.where(mask, np.arange(mask.shape[1], 0, -1), 0))
        warm = miss_curve_of(trace, "lru", counted=np.arange(TOKENS) >= 6)
        hook = RecordedHook.from_miss_curves(site, layer, miss_curve_of(trace, "lru"), warm)  # type: ignore[arg-type]
        assert hook.kept == pytest.approx(mask.sum() / TOKENS)
        for capacity in range(int(mask[0].sum()), mask.shape[1] + 1):
            share = np.array(capacity / mask.shape[1])
            assert hook.cold.at(share) == pytest.approx(1 - run_cache(trace, capacity).miss_rate())
        assert hook.warm is not None
        assert hook.warm.at(np.array(1.0)) == 1.0


def test_mean_of_rates_by_a_loop():
    made = simulator(5)
    found = made.curve(850.0 / GB).at(0)
    middle = 1 / found.tokens_per_s - found.seconds_by_part["kv"]
    full = 2 * found.seconds_by_part["kv"]
    positions = (np.arange(100_000) + 0.5) / 100_000
    assert found.mean_of_rates_tokens_per_s == pytest.approx(float((1 / (middle + full * positions)).mean()))
    assert found.mean_of_rates_tokens_per_s > found.tokens_per_s


def test_all_resident_is_bound_by_dram_alone():
    found = simulator(6, start="warm", flash_latency=True).curve(1.0).at(0)
    device = DEVICES["snapdragon-8-gen-3"]
    static_read = 192 + 160 + 8 + 2 * TOKENS * 4 * 2 / 2
    read = static_read + MLP_BYTES * found.mlp_density
    assert 1 / found.tokens_per_s == pytest.approx(read / (device.dram_gb_per_s * GB))
    assert found.hit_rate == pytest.approx(1.0)
    assert found.seconds_by_part["mlp_flash"] == pytest.approx(0.0)
    assert found.memory_gb == pytest.approx(found.model_gb)


def test_all_resident_dense_is_bound_by_dram_alone():
    found = simulate("snapdragon-8-gen-3", "phi-3-mini", 100.0, make_policy("dense", {}))
    assert found.speedup == 1.0
    assert found.hit_rate == 1.0
    assert found.mlp_density == 1.0
    assert found.seconds_by_part["mlp_flash"] == 0.0
    assert found.memory_gb == pytest.approx(found.model_gb)


def test_parts_add_up_and_have_names():
    for options in MODES:
        found = simulator(7, **options).curve([0.4e-6, 0.8e-6, 1.2e-6])
        assert set(found.seconds_by_part) <= set(PARTS)
        for i in range(3):
            one = found.at(i)
            assert sum(one.seconds_by_part.values()) == pytest.approx(1 / one.tokens_per_s)
            assert sum(one.dense_seconds_by_part.values()) == pytest.approx(1 / one.dense_tokens_per_s)
            assert one.memory_gb <= one.dram_gb * (1 + 1e-9)
    assert {"tokens_per_s", "dense_tokens_per_s", "hit_rate", "memory_gb", "seconds_by_part"} <= set(
        one.to_json()
    )


def test_another_shape_takes_shares_and_relative_depth():
    assert [layer_at_same_depth(layer, 5, 3) for layer in range(5)] == [0, 0, 1, 2, 2]
    assert [layer_at_same_depth(layer, 2, 30) for layer in range(2)] == [0, 29]
    assert layer_at_same_depth(0, 1, 30) == 0
    policy = make_policy("dip", {"input_keep": 0.5, "neuron_keep": 5 / 12})
    made = simulator_of("apple-a18", "phi-3-medium", policy, recorded=recording(8))
    assert len(made.hooks) == 80
    assert {hook.kept for hook in made.hooks if hook.site == "mlp_in"} == {2560.0}
    assert made.curve(4.0).at(0).mlp_density == pytest.approx((2 * 0.5 + 5 / 12) / 3)


@pytest.mark.parametrize(
    ("name", "chosen", "linears", "density"),
    [
        ("glu_pruning", {"keep": 0.4}, {"mlp_mid": 1}, (2 + 0.4) / 3),
        ("gate_pruning", {"keep": 0.4}, {"mlp_mid": 2}, (1 + 0.8) / 3),
        ("up_pruning", {"keep": 0.4}, {"mlp_mid": 2}, (1 + 0.8) / 3),
        ("glu_oracle", {"keep": 0.4}, {"mlp_mid": 3}, 0.4),
        ("random", {"keep": 0.4}, {"mlp_mid": 3}, 0.4),
        ("dip", {"density": 0.4}, {"mlp_in": 2, "mlp_mid": 1}, 0.4),
        ("dip_ca", {"density": 0.4}, {"mlp_in": 2, "mlp_mid": 1}, 0.4),
    ],
)
def test_every_policy_reads_what_its_settings_say(
    name: str, chosen: dict[str, float], linears: dict[str, int], density: float
):
    policy = make_policy(name, chosen)
    assert masked_linears(policy) == linears
    found = simulate("apple-a18", "phi-3-medium", 6.0, policy)
    assert found.mlp_density == pytest.approx(density)
    assert found.tokens_per_s > 0
    unmasked = 1 - sum(linears.values()) / 3
    assert found.static_gb == pytest.approx(1.84877056 + 5.505024 * unmasked)


def test_predictors_are_resident_and_read():
    plain = simulate("apple-a18", "phi-3-medium", 4.0, make_policy("random", {"keep": 0.4}))
    found = simulate("apple-a18", "phi-3-medium", 4.0, make_policy("predictor", {"keep": 0.4, "rank": 64}))
    own = 40 * 64 * (5120 + 17920)  # weights of 16 bits: layers · r · (d + n)
    assert found.static_gb == pytest.approx(plain.static_gb + 2 * own / 1e9)
    assert found.seconds_by_part["predictor"] == pytest.approx(2 * own / 60e9)
    assert found.dense_tokens_per_s == plain.dense_tokens_per_s
    assert found.tokens_per_s < plain.tokens_per_s


def test_a_threshold_fixes_no_share_to_simulate():
    with pytest.raises(UserError, match="do not fix what it keeps"):
        simulate("apple-a18", "phi-3-medium", 4.0, make_policy("cats", {}))


def test_a_cold_start_costs_one_filling_of_the_caches():
    policy = make_policy("dip", {"density": 0.5})
    cold = simulate("apple-a18", "phi-3-medium", 4.0, policy, settings=SimulatorSettings.paper())
    warm = simulate("apple-a18", "phi-3-medium", 4.0, policy, settings=SimulatorSettings.paper(start="warm"))
    filling = cold.cache_gb / 2048  # GB a token, at 1 GB/s in place of 60
    assert 1 / cold.tokens_per_s - 1 / warm.tokens_per_s == pytest.approx(filling * (1 - 1 / 60), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: run(dram_gb=0.0), "above 0 GB"),
        (lambda: run(dram_gb=math.nan), "above 0 GB"),
        (lambda: run(device="nokia-3310"), "no device"),
        (lambda: run(shape="gpt-9"), "no model shape"),
        (lambda: run(hits="lucky"), "no hit law"),
        (lambda: run(hits={"mlp_in": 0.5}), "missing for the neurons"),
        (lambda: run(hits={"mlp_in": 0.5, "mlp_mid": 1.5}), "between 0 and 1"),
        (lambda: run(recorded=[]), "empty"),
        (lambda: run(recorded=recording(0)[:3]), "nothing for layer 1"),
        (lambda: run(recorded=recording(0), settings=SimulatorSettings(start="warm")), "choose a cold one"),
        (lambda: SimulatorSettings.paper(dram=3), "no setting 'dram'"),
        (lambda: SimulatorSettings.parse({"split": "manual"}, "simulator"), "input_share"),
        (lambda: SimulatorSettings.parse({"mlp_bits": 0}, "simulator"), "mlp_bits"),
        (lambda: HitCurve.by_capacity([0.0, 1.2]), "between 0 and 1"),
        (lambda: HitCurve.by_capacity([0.0]), "at least two"),
        (lambda: HitCurve.from_points([0.5, 0.4], [0.1, 0.2]), "have to rise"),
        (lambda: HitCurve.from_misses([4, 2], 0), "one access"),
        (lambda: HitCurve.assumed("best", 0.0), "share of entries kept"),
        (lambda: simulator().replay([[1, 2]], 4.0), "4 hooks"),
        (lambda: simulator().replay([[9, 9, 9, 9]], 4.0), "more entries than it reads"),
    ],
)
def test_nonsense_is_refused_in_a_sentence(call: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        call()


def run(**changes: Any) -> Any:
    wanted: dict[str, Any] = {
        "device": "apple-a18",
        "shape": SHAPE,
        "dram_gb": 4.0,
        "policy": make_policy("dip", {"density": 0.5}),
    }
    return simulate(**(wanted | changes))


def test_a_manual_split_needs_two_kinds_of_caches():
    policy = make_policy("glu_pruning", {"keep": 0.5})
    by_hand = SimulatorSettings(split="manual", input_share=0.5)
    with pytest.raises(UserError, match="neurons only"):
        simulate("apple-a18", "phi-3-medium", 6.0, policy, settings=by_hand)


def test_shares_given_per_layer():
    policy = make_policy("dip", {"input_keep": (0.5, 0.7), "neuron_keep": (0.2, 0.4)})
    assert policy_keeps(policy, 2) == {"mlp_in": [0.5, 0.7], "mlp_mid": [0.2, 0.4]}
    assert simulate("apple-a18", SHAPE, 1.0, policy).mlp_density == pytest.approx((2 * 0.6 + 0.3) / 3)
    with pytest.raises(UserError, match="layers"):
        simulate("apple-a18", "phi-3-mini", 1.0, policy)


def test_a_stored_grid_of_cache_shares():
    curve = HitCurve.from_points([0.2, 0.4], [0.5, 0.8])
    np.testing.assert_allclose(curve.at(np.array([0.0, 0.1, 0.3, 0.9])), [0.0, 0.25, 0.65, 0.8])
