"""Mixtures of experts on devices: shapes against published sizes, times against figures got by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.devices import (
    DEVICES,
    EXPERT_BITS,
    MOE_SHAPES,
    ExpertSimulator,
    ExpertSimulatorSettings,
    Flash,
    MoEShape,
    find_moe_shape,
)
from backend.errors import UserError
from backend.residency import ExpertTrace, miss_curve_of
from tests.moe_tiny import tiny_moe

# Two layers, eight experts of 4·3·10 = 120 weights, two a token; 200 weights in other MLPs, 300 in attention.
SHAPE = MoEShape(
    name="by hand", hidden_size=4, expert_neurons=10, experts=8, experts_per_token=2, moe_layers=2,
    other_mlp_weights=200, attention_weights=300, kv_values=16, vocabulary=25,
)  # fmt: skip
# 1 GB/s from DRAM; Flash 0.1 GB/s for any read, 2 µs to the first byte.
DEVICE = dataclasses.replace(
    DEVICES["apple-a18"], dram_gb_per_s=1.0, flash=Flash(((1.0, 0.1),), 2.0, "by hand")
)
BYTES = {"expert_bits": 8, "resident_bits": 8, "embedding_bits": 8, "kv_bits": 8, "sequence_tokens": 20}


def simulator(**changes):
    return ExpertSimulator(DEVICE, SHAPE, ExpertSimulatorSettings(**(BYTES | changes)))


def test_a_token_by_hand():
    """t = dense + K·t_expert + misses·(bytes/BW + seek), every term worked out."""
    found = simulator().at(4, 0.25)
    # In memory: 300 + 200 weights, head 100 and one row of 4, ten earlier tokens of 16 KV values: 764 bytes.
    assert found.seconds_by_part["dense"] == pytest.approx(764e-9)
    assert found.seconds_by_part["experts"] == pytest.approx(2 * 2 * 120e-9)  # 4 experts at 1 GB/s
    # One of the four misses: 120 bytes at 0.1 GB/s, and 2 µs.
    assert found.misses_per_token == 1
    assert found.flash_bytes_per_token == 120
    assert found.seconds_by_part["flash"] == pytest.approx(1200e-9 + 2000e-9)
    assert found.tokens_per_s == pytest.approx(1e9 / (764 + 480 + 3200))
    assert found.all_resident_tokens_per_s == pytest.approx(1e9 / (764 + 480))
    assert found.no_cache_tokens_per_s == pytest.approx(1e9 / (764 + 480 + 4 * 3200))
    # 500 weights, two tables of 100, 20·16 KV values; then 2 layers of 4 slots, or of all 8 experts.
    assert found.memory_gb == pytest.approx((500 + 200 + 320 + 2 * 4 * 120) / 1e9)
    assert found.model_gb == pytest.approx((500 + 200 + 320 + 2 * 8 * 120) / 1e9)


@pytest.mark.parametrize(
    ("miss_rate", "seconds"),
    [(0.25, 1200 + 2000), (0.5, 2400 + 2 * 2000), (1.0, 4800 + 2 * 2000)],
)
def test_misses_of_a_layer_asked_for_together_wait_once(miss_rate, seconds):
    found = simulator(seeks="per layer").at(4, miss_rate)
    assert found.seconds_by_part["flash"] == pytest.approx(seconds * 1e-9)


def test_with_overlap_flash_adds_what_it_takes_longer():
    assert simulator(overlap=True).at(4, 0.25).seconds_by_part["flash"] == pytest.approx((3200 - 1244) * 1e-9)
    fast = simulator(overlap=True, flash_gb_per_s=10.0, flash_latency_us=0.0).at(4, 0.25)
    assert fast.seconds_by_part["flash"] == pytest.approx(0, abs=1e-15)
    assert fast.tokens_per_s == fast.all_resident_tokens_per_s


@pytest.mark.parametrize(("name", "factor"), [("fp32", 4), ("fp16", 2), ("int8", 1), ("int4", 0.5)])
def test_bit_widths_change_the_experts_bytes_and_nothing_else(name, factor):
    found, eight = simulator(expert_bits=EXPERT_BITS[name]).at(4, 0.5), simulator().at(4, 0.5)
    assert found.flash_bytes_per_token == factor * eight.flash_bytes_per_token
    assert found.seconds_by_part["experts"] == pytest.approx(factor * eight.seconds_by_part["experts"])
    assert found.seconds_by_part["dense"] == eight.seconds_by_part["dense"]
    seek = 2 * 2e-6
    assert found.seconds_by_part["flash"] - seek == pytest.approx(
        factor * (eight.seconds_by_part["flash"] - seek)
    )


def test_small_experts_are_read_slower():
    phone = DEVICES["snapdragon-8-gen-3"]
    by_size = ExpertSimulator(phone, SHAPE, ExpertSimulatorSettings(**BYTES)).at(4, 1.0)
    at_peak = ExpertSimulator(phone, SHAPE, ExpertSimulatorSettings(**BYTES, flash_by_read_size=False)).at(
        4, 1.0
    )
    waits = 4 * phone.flash.latency_us * 1e-6
    assert at_peak.seconds_by_part["flash"] == pytest.approx(480 / 4.2e9 + waits)
    assert by_size.seconds_by_part["flash"] == pytest.approx(480 / (0.45e9 * 120 / 4096) + waits)


@given(st.integers(2, 8), st.floats(0, 1), st.floats(0, 1))
def test_more_misses_are_never_faster(slots, one, other):
    low, high = sorted((one, other))
    found = simulator()
    assert found.at(slots, low).tokens_per_s >= found.at(slots, high).tokens_per_s
    assert found.at(slots, 0).tokens_per_s == found.at(slots, 0).all_resident_tokens_per_s


def test_slots_that_fit_are_the_slots_that_are_used():
    found = simulator()
    for slots in range(2, 9):
        needed = found.at(slots, 0).memory_gb
        assert found.slots_in(needed) == slots
        if slots > 2:
            assert found.slots_in(needed * (1 - 1e-6)) == slots - 1
    assert found.slots_in(1.0) == 8
    with pytest.raises(UserError, match=r"do not hold what stays of by hand and the 2 experts"):
        found.slots_in(found.at(2, 0).memory_gb * 0.99)


def test_a_recording_gives_the_miss_rate():
    trace = ExpertTrace.from_lists([[0, 1], [2, 0], [0, 1], [3, 4]], 8)
    curve = miss_curve_of(trace)
    found = simulator().along(curve, 3)
    assert found.miss_rate == curve.misses(3) / 8
    with pytest.raises(UserError, match="recording is of 9 experts a layer, by hand has 8"):
        simulator().along(miss_curve_of(ExpertTrace.from_lists([[0, 1]], 9)), 3)
    with pytest.raises(UserError, match="recording uses 4 experts a token"):
        simulator().along(miss_curve_of(ExpertTrace.from_lists([[0, 1, 2, 3]], 8)), 3)


@pytest.mark.parametrize(("slots", "rate"), [(1, 0.5), (9, 0.5), (4, 1.5), (4, -0.1)])
def test_what_cannot_be_is_said(slots, rate):
    with pytest.raises(UserError, match=r"2 to 8 slots|share from 0 to 1"):
        simulator().at(slots, rate)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("olmoe-1b-7b", 6.92), ("qwen1.5-moe-a2.7b", 14.3), ("deepseek-v2-lite", 15.7),
        ("smollm2-moe", 0.1345 + 0.0022), ("smollm2-moe-sparse", 0.1345 + 0.0022),  # SmolLM2-135M and routers
        ("mixtral-8x7b", 46.7), ("phi-3.5-moe", 41.9), ("qwen3-30b-a3b", 30.5),
    ],
)  # fmt: skip
def test_named_shapes_have_their_published_sizes(name, billions):
    assert MOE_SHAPES[name].weights / 1e9 == pytest.approx(billions, rel=5e-3)


def test_every_named_shape_is_tested_above():
    assert len(MOE_SHAPES) == 8


@pytest.mark.parametrize(
    "family", ["qwen2_moe", "mixtral", "olmoe", "deepseek_v2", "deepseek_v3", "qwen3_moe"]
)
def test_a_shape_from_a_config_counts_the_models_matrices(family, tmp_path):
    model = tiny_moe(family)
    config = model.config.to_dict()
    if family in ("mixtral", "olmoe"):
        del config["moe_intermediate_size"]  # the tiny configs all have it; these two know nothing of it
    (tmp_path / "config.json").write_text(json.dumps(config))
    shape = find_moe_shape(tmp_path)
    table = model.get_input_embeddings().weight
    matrices = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() >= 2 and "shared_expert_gate" not in name  # a row that gates; not counted
    }
    assert shape.weights == sum(each.numel() for each in matrices.values())
    routed = [
        p for name, p in matrices.items() if "experts." in name and "shared" not in name and p.dim() == 3
    ]
    assert shape.moe_layers * shape.experts * shape.expert_weights == sum(p.numel() for p in routed)
    assert shape.embedding_weights == table.numel()
    layer = model.get_decoder().layers[0].self_attn
    attention = sum(p.numel() for p in layer.parameters() if p.dim() == 2)
    assert shape.attention_weights == attention * model.config.num_hidden_layers


def test_a_dense_model_is_sent_elsewhere(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 64, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match="no routed experts"):
        find_moe_shape(tmp_path)
    with pytest.raises(UserError, match="did you mean 'mixtral-8x7b'"):
        find_moe_shape("mixtral-8x7")
