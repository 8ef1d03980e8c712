"""Timing: interleaved with dense, split into parts, and honest about disturbance."""

from __future__ import annotations

import multiprocessing
import os
import time

import pytest
import torch

from backend.decoding import latency
from backend.decoding.bandwidth import MemoryReader
from backend.decoding.contention import Contention
from backend.decoding.latency import measure_latency
from backend.errors import UserError
from backend.experiments.laboratory import Laboratory
from backend.experiments.measure import measure_point
from backend.experiments.sweep import Sweep
from backend.sparsity import make_policy

IDS = torch.randint(3, 120, (90,), generator=torch.Generator().manual_seed(7))


def timed(engine, rounds=2, **how):
    policy = make_policy("dip", {"density": 0.4})
    return list(measure_latency(engine, policy, IDS, prompt=16, warm_up=4, rounds=rounds, **how))


def test_a_latency_says_what_was_measured(llama):
    *_, result = timed(llama)
    found = {each["metric"]: each for each in result.measurements(4)}
    assert {each["how"] for each in found.values()} == {"measured"}
    assert found["ms_per_token_median"]["n"] == 2 * 70
    value = {name: each["value"] for name, each in found.items()}
    assert value["ms_per_token_p10"] <= value["ms_per_token_median"] <= value["ms_per_token_p90"]
    assert value["tokens_per_s"] == pytest.approx(1e3 / value["ms_per_token_median"])
    assert value["speedup"] == pytest.approx(
        value["dense_ms_per_token_median"] / value["ms_per_token_median"]
    )
    parts = sum(value[f"{part}_ms"] for part in ("mlp", "attention", "head", "overhead"))
    assert parts == pytest.approx(value["ms_per_token_median"], rel=0.5)
    assert value["mlp_density"] == pytest.approx(0.4, abs=0.02)
    # 70 tokens from the 20th on, 3 layers, 2 key-value heads of 12, two of them, 4 bytes.
    assert value["kv_bytes_per_token"] == (16 + 90) / 2 * 2 * 2 * 12 * 3 * 4
    read = value["bytes_per_token"] + value["kv_bytes_per_token"]
    assert value["read_bytes_per_s"] == pytest.approx(read / value["ms_per_token_median"] * 1e3)
    assert value["bandwidth_share"] == pytest.approx(
        value["read_bytes_per_s"] / value["bandwidth_bytes_per_s"]
    )
    assert value["lean_loop"] == 1
    assert value["copied_weight_bytes"] == 0
    assert len(result.windows["speedup"]) == 2
    assert found["speedup"]["stderr"] is not None


def test_the_two_sides_take_turns(llama, monkeypatch):
    fed = []
    feed = latency.Decoding.feed

    def noted(self, token):
        fed.append(self.policy.name)
        return feed(self, token)

    monkeypatch.setattr(latency.Decoding, "feed", noted)
    monkeypatch.setattr(latency.Contention, "share", lambda self: 0.0)
    timed(llama, rounds=1)
    after_warm_up = fed[8:]
    turns = [name for i, name in enumerate(after_warm_up) if i == 0 or name != after_warm_up[i - 1]]
    assert (
        turns
        == ["dense", "dip", "dense", "dip", "dense", "dip", "dense", "dip", "dense", "dip"][: len(turns)]
    )
    assert len(turns) >= 9
    assert fed.count("dense") == fed.count("dip") == 74


def test_a_disturbed_round_is_tried_again_and_the_least_disturbed_is_kept(llama, monkeypatch):
    shares = iter([0.5, 0.3, 0.4, 0.01])

    class Said:
        def share(self):
            return next(shares)

    monkeypatch.setattr(latency, "Contention", Said)
    *_, result = timed(llama, rounds=2)
    value = {each["metric"]: each["value"] for each in result.measurements(4)}
    assert [each.others for each in result.rounds] == [0.3, 0.01]
    assert value["disturbed_rounds"] == 1
    assert value["others_cpu_share"] == 0.3


def _burn(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_busy_neighbour_is_noticed():
    neighbour = multiprocessing.get_context("spawn").Process(target=_burn, args=(20,))
    neighbour.start()
    try:
        time.sleep(1.0)
        noticed = Contention()
        time.sleep(1.5)
        assert noticed.share() > 0.5 / (os.cpu_count() or 1)
    finally:
        neighbour.terminate()
        neighbour.join()


def test_bandwidth_is_that_of_a_memory():
    assert 1e8 < MemoryReader().bytes_per_second() < 1e13


def latency_sweep(folder, **changes):
    evaluation = {"kind": "latency", "text": "prose", "prompt": 8, "tokens": 64, "warm_up": 2, "rounds": 1}
    return {
        "name": "time", "model": str(folder), "evaluation": evaluation | changes,
        "policies": [{"method": "dip", "density": 0.5}],
    }  # fmt: skip


def test_a_latency_belongs_to_its_machine_and_may_be_repeated(home, tiny_folder, monkeypatch):
    laboratory = Laboratory(home, device="cpu")

    def cell(**changes):
        (plan,) = Sweep.parse(latency_sweep(tiny_folder, **changes), "sweep").plans()
        return laboratory.resolve(plan)

    here = cell()
    assert "cpu" in str(here.machine)
    assert here.id == cell().id != cell(repeat=1).id
    monkeypatch.setattr("backend.experiments.provenance._processor", lambda: "another processor")
    assert cell().id != here.id


def test_a_latency_is_measured_like_any_point(home, tiny_folder):
    settings = latency_sweep(tiny_folder)["evaluation"]
    arguments = (str(tiny_folder), "dip", {"density": 0.5}, settings)
    found = measure_point(Laboratory(home, device="cpu"), *arguments)
    for name in ("ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90", "dense_ms_per_token_median",
                 "speedup", "mlp_ms", "bytes_per_token", "bandwidth_share"):  # fmt: skip
        assert found[name] > 0, name
    again = measure_point(Laboratory(home, device="cpu"), *arguments)
    assert again == found


@pytest.mark.parametrize(
    ("changes", "policy", "sentence"),
    [
        ({"batch": 4}, {"method": "dip", "density": 0.5}, "batch 4 cannot be timed"),
        (
            {"tokens": 10},
            {"method": "dip", "density": 0.5},
            "evaluation: tokens: .* greater than or equal to 64",
        ),
        ({}, {"method": "glu_oracle", "keep": 0.5}, "GLU oracle is an oracle"),
    ],
)
def test_what_cannot_be_timed_is_refused_before_anything_runs(changes, policy, sentence):
    with pytest.raises(UserError, match=sentence):
        Sweep.parse(latency_sweep("m", **changes) | {"policies": [policy]}, "sweep").plans()


def test_more_tokens_than_the_context_holds_get_a_sentence(home, tiny_folder):
    settings = latency_sweep(tiny_folder, tokens=200)["evaluation"]
    with pytest.raises(UserError, match="come to 210, but the model's context holds 128"):
        measure_point(Laboratory(home, device="cpu"), str(tiny_folder), "dip", {"density": 0.5}, settings)


def test_what_a_prompts_attribution_takes_is_in_the_time_to_the_first_token(llama):
    policy = make_policy("prompt_attribution", {"keep": 0.3})
    *_, result = measure_latency(llama, policy, IDS, prompt=16, warm_up=2, rounds=1)
    value = {each["metric"]: each["value"] for each in result.measurements(4)}
    assert value["prompt_ms"] > value["dense_prompt_ms"] > 0, "a forward and a backward pass come on top"
    assert value["mlp_density"] == pytest.approx(0.3, abs=0.01)
    assert value["lean_loop"] == 1


def test_a_mask_of_a_dense_prompt_cannot_have_a_sparse_one():
    settings = latency_sweep("m", prefill="sparse")
    with pytest.raises(UserError, match="makes its masks of a prompt that runs dense"):
        Sweep.parse(settings | {"policies": [{"method": "prompt_attribution"}]}, "sweep").plans()
    with pytest.raises(UserError, match="passes of its own over what was decoded"):
        Sweep.parse(latency_sweep("m") | {"policies": [{"method": "refreshed_attribution"}]}, "sweep").plans()
