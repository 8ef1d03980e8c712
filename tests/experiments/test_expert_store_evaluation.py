"""Expert stores in sweeps and on the command line: settings, cells, refusals, the simulation beside."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from backend.cli import app
from backend.decoding.direct_reader import _lies_in_memory as lies_in_memory
from backend.errors import UserError
from backend.experiments.evaluations import make_evaluation
from backend.experiments.laboratory import Laboratory
from backend.experiments.measure import latency_kind, measure_point
from backend.experiments.sweep import Sweep
from backend.home import REPOSITORY
from backend.routing import make_routing
from tests.models_tiny import tiny_tokenizer
from tests.moe_tiny import tiny_moe

QUICK = {"kind": "expert_store", "text": "prose", "prompt": 8, "tokens": 64, "warm_up": 2, "rounds": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny random mixture of experts and a tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny-moe"
    tiny_moe("qwen2_moe").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _no_second_try(monkeypatch, stores_in_memory):
    monkeypatch.setattr("backend.decoding.expert_latency.ATTEMPTS", 1)


def test_a_point_is_measured_once_and_kept(home, folder):
    laboratory = Laboratory(home, device="cpu")
    found = measure_point(laboratory, str(folder), "original", {}, {**QUICK, "slots": 5})
    assert found["cached_share"] == 5 / 8
    assert found["experts_per_token"] == 4
    assert 0 < found["miss_rate"] < 1
    assert found["ms_per_token_median"] > 0
    assert found["how"] == "measured"
    assert len(list(home.experts.glob("*.experts"))) == 1
    again = measure_point(laboratory, str(folder), "original", {}, {**QUICK, "slots": 5})
    assert again == found
    other = measure_point(laboratory, str(folder), "original", {}, {**QUICK, "slots": 6})
    assert other["run"] != found["run"]
    assert other["miss_rate"] < found["miss_rate"]
    assert len(list(home.experts.glob("*.experts"))) == 1


def test_a_policy_brings_its_cache(home, folder):
    laboratory = Laboratory(home, device="cpu")
    settings = {"slots": 5, "lambda_": 1.0, "top_j": 0, "eviction": "lfu"}
    near = measure_point(laboratory, str(folder), "cache_prior", settings, QUICK)
    own = measure_point(laboratory, str(folder), "original", {}, {**QUICK, "slots": 5, "eviction": "lfu"})
    assert near["cached_share"] == own["cached_share"] == 5 / 8
    assert near["miss_rate"] < own["miss_rate"]
    fewer = measure_point(laboratory, str(folder), "expert_pruning", {"experts": 2}, {**QUICK, "slots": 5})
    assert fewer["experts_per_token"] == 2


def test_half_of_the_experts_by_default(home, folder):
    assert (
        measure_point(Laboratory(home, device="cpu"), str(folder), "original", {}, QUICK)["cached_share"]
        == 0.5
    )


@pytest.mark.parametrize("policy", ["original", "adapmoe"])
def test_fewer_slots_than_a_token_uses_are_refused_before_anything_is_written(home, folder, policy):
    with pytest.raises(UserError, match="3 slots cannot hold the 4 experts"):
        measure_point(Laboratory(home, device="cpu"), str(folder), policy, {}, {**QUICK, "slots": 3})
    written = [folder for folder in (home.experts, home.root / "calibrations") if folder.exists()]
    assert not any(any(folder.iterdir()) for folder in written)


def test_a_dense_model_has_no_experts_to_load(home, tiny_folder):
    with pytest.raises(UserError, match="has no routed experts"):
        measure_point(Laboratory(home, device="cpu"), str(tiny_folder), "original", {}, QUICK)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"eviction": "belady"}, "a store that runs cannot know; choose lru, lfu or random"),
        ({"dtype": "int8"}, "dtype int8 cannot be loaded from a store"),
        ({"tokens": 10}, "greater than or equal to 64"),
        ({"cache_share": 0}, "greater than 0"),
        ({"slot": 3}, "did you mean 'slots'"),
    ],
)
def test_settings_that_cannot_be_are_said(changes, sentence):
    with pytest.raises(UserError, match=sentence):
        make_evaluation({**QUICK, **changes})


def test_a_policy_and_its_store_have_one_cache():
    policy = make_routing("cache_prior", {"slots": 5})
    make_evaluation(QUICK).admit(policy)
    make_evaluation({**QUICK, "slots": 5, "eviction": "lru"}).admit(policy)
    for changes in ({"slots": 6}, {"eviction": "lfu"}, {"cache_share": 0.25}):
        with pytest.raises(UserError, match="looks at a cache with"):
            make_evaluation({**QUICK, **changes}).admit(policy)
    with pytest.raises(UserError, match="all layers share"):
        make_evaluation({**QUICK, "scope": "global"}).admit(policy)
    make_evaluation({**QUICK, "scope": "global"}).admit(make_routing("original", {}))


def test_methods_are_timed_by_their_kind():
    assert latency_kind("dip") == "latency"
    assert latency_kind("cache_prior") == "expert_store"
    with pytest.raises(UserError, match="did you mean 'cache_prior'"):
        latency_kind("cache_priority")


def test_the_sweep_file_is_whole():
    sweep = Sweep.from_yaml(REPOSITORY / "data" / "sweeps" / "moe-store.yaml")
    names = {plan.policy.name for plan in sweep.plans()}
    assert {"original", "cache_prior"} <= names
    assert sweep.evaluation.kind == "expert_store"


def command(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_latency_of_a_routing_policy_on_the_command_line(home, folder):
    done = command(
        "latency", "--policy", "original", "--model", str(folder), "--text", "prose", "--tokens", "64",
        "--prompt", "8", "--rounds", "1", "--option", "slots=5", "--home", str(home.root), "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["cached_share"] == 5 / 8
    if not lies_in_memory(home.root):
        assert record["page_cache_bypass"] > 0
    refused = command("latency", "--policy", "original", "--model", str(folder), "--batch", "2")
    assert refused.exit_code == 2
    assert "belong to mask policies" in refused.stderr


def test_simulate_experts_on_the_command_line(tmp_path):
    common = ("simulate-experts", "--device", "snapdragon-8-gen-3", "--shape", "olmoe-1b-7b")
    done = command(*common, "--slots", "32", "--miss-rate", "0.2", "--option", "expert_bits=8", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["how"] == "simulated"
    assert record["misses_per_token"] == pytest.approx(0.2 * 16 * 8)
    assert record["expert_mb"] == pytest.approx(3 * 2048 * 1024 / 1e6)
    assert record["tokens_per_s"] < record["all_resident_tokens_per_s"]
    trace = tmp_path / "trace.csv"
    rows = [f"0,1,{t},0,{s},{(5 * t + s) % 64},0.5,0,0" for t in range(20) for s in range(8)]
    head = (
        "# route_trace v1\n# n_expert=64\nturn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"
    )
    trace.write_text(head + "\n".join(rows) + "\n")
    recorded = command(*common, "--dram-gb", "4", "--trace", str(trace), "--json")
    assert recorded.exit_code == 0, recorded.output
    found = json.loads(recorded.stdout)
    assert found["misses"] == "trace.csv, lru, recorded with 8 experts a token"
    assert 8 <= found["slots"] <= 64
    assert found["memory_gb"] <= 4
    for wrong, sentence in (
        (("--slots", "32"), "either --miss-rate"),
        (("--miss-rate", "0.2"), "either --slots or --dram-gb"),
        (("--slots", "4", "--miss-rate", "0.2"), "takes 8 to 64 slots"),
        (("--slots", "32", "--miss-rate", "0.2", "--option", "expert_bit=8"), "did you mean 'expert_bits'"),
    ):
        failed = command(*common, *wrong)
        assert failed.exit_code == 2
        assert sentence in failed.stderr
