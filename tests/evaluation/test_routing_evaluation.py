"""Routing cells: scores paired with the original routing, misses of slow caches, a record beside."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from backend.cli import app
from backend.errors import UserError
from backend.evaluation.routing import CacheSetup, RoutingReference, evaluate_routing
from backend.evaluation.windows import Windows
from backend.experiments.evaluations import make_evaluation
from backend.experiments.known import known_results
from backend.experiments.laboratory import Laboratory
from backend.experiments.routing_records import routing_records
from backend.experiments.runner import run_sweep
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import Sweep, one_policy
from backend.methods import make_method
from backend.residency import RoutingRecord
from backend.results import Store, queries
from backend.results.routing import routing_points
from backend.routing import NONE, make_routing
from backend.routing.anatomy import find_moe
from backend.routing.calibration import layer_sensitivities
from backend.routing.engine import RoutedEngine
from backend.routing.prefetch import read_guesses
from tests.models_tiny import tiny_tokenizer
from tests.moe_tiny import EXPERTS, LAYERS, TOP_K, tiny_moe
from tests.routing.reference import SlowCache

IDS = torch.randint(3, 100, (3, 40), generator=torch.Generator().manual_seed(2))
WINDOWS = Windows(IDS, (1, 1, 1))


@pytest.fixture(scope="module")
def engine() -> RoutedEngine:
    return RoutedEngine(find_moe(tiny_moe("qwen2_moe")))


@pytest.fixture(scope="session")
def moe_folder(tmp_path_factory):
    """A folder with a tiny random mixture of experts and its tokenizer, as a user's local model would be."""
    folder = tmp_path_factory.mktemp("models") / "tiny-moe"
    tiny_moe("qwen2_moe").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def evaluated(engine, name, settings, windows=WINDOWS, cache=None, reference=None):
    policy = make_routing(name, settings)
    reference = reference or RoutingReference(windows)
    *_, last = evaluate_routing(engine, policy, reference, cache or CacheSetup())
    return last, {each["metric"]: each for each in last.measurements(4)}


def test_scores_are_those_of_the_routed_model_beside_the_original(engine):
    settings = {"lambda_": 0.6, "slots": 5}
    result, found = evaluated(engine, "cache_prior", settings)
    nll, kl, agree = [], [], []
    for w in range(3):
        ids = IDS[w : w + 1]
        with torch.inference_mode():
            original = engine.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            with engine.applied(make_routing("cache_prior", settings), sequence=w):
                routed = engine.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        taken = [-p.gather(1, ids[0, 1:, None]).mean() for p in (routed, original)]
        nll.append([float(each) for each in taken])
        kl.append(float((original.exp() * (original - routed)).sum(-1).mean()))
        agree.append(float((original.argmax(-1) == routed.argmax(-1)).double().mean()))
    nll = np.array(nll)
    assert found["nll"]["value"] == pytest.approx(nll[:, 0].mean(), abs=1e-5)
    assert found["perplexity"]["value"] == pytest.approx(math.exp(nll[:, 0].mean()), rel=1e-5)
    difference = nll[:, 0] - nll[:, 1]
    assert found["delta_nll"]["value"] == pytest.approx(difference.mean(), abs=1e-5)
    assert found["delta_nll"]["stderr"] == pytest.approx(difference.std(ddof=1) / math.sqrt(3), abs=1e-5)
    assert found["kl"]["value"] == pytest.approx(np.mean(kl), abs=1e-5)
    assert found["agreement"]["value"] == pytest.approx(np.mean(agree))
    assert found["nll"]["n"] == 3 * 39
    assert found["nll"]["how"] == "measured"
    assert set(result.windows) >= {"nll", "delta_nll", "miss_rate", "routing_change"}


def test_the_original_routing_differs_from_itself_by_nothing(engine):
    _, found = evaluated(engine, "original", {})
    for metric in ("delta_nll", "kl", "routing_change", "lost_mass", "lost_rank"):
        assert found[metric]["value"] == pytest.approx(0, abs=1e-9), metric
    assert found["agreement"]["value"] == found["routing_agreement"]["value"] == 1
    assert found["experts_per_token"]["value"] == TOP_K


def test_guesses_are_those_of_the_prefetch_and_the_control_finds_all(engine):
    _, found = evaluated(engine, "original", {})
    assert found["prefetch_control"]["value"] == 1
    layers = engine.anatomy.layers
    with torch.inference_mode():
        readings = [read_guesses(layers, lambda ids=ids: engine.model(input_ids=ids[None])) for ids in IDS]
    recall = np.mean([each.recall() for each in readings])
    assert 0 < recall < 1
    assert found["prefetch_recall"]["value"] == pytest.approx(recall)
    assert found["prefetch_wasted"]["value"] == pytest.approx(np.mean([r.wasted_per_token for r in readings]))
    _, rerouted = evaluated(engine, "max_rank", {"m": 7, "slots": 5})
    assert rerouted["prefetch_control"]["value"] == pytest.approx(1 - rerouted["routing_change"]["value"])


def test_routers_that_cannot_be_asked_have_no_guesses(engine, monkeypatch):
    monkeypatch.setattr("backend.evaluation.routing.guessing", lambda *_, **__: nullcontext())
    _, found = evaluated(engine, "original", {})
    assert not {"prefetch_recall", "prefetch_control", "prefetch_wasted"} & set(found)
    assert found["miss_rate"]["value"] > 0


@pytest.mark.parametrize(
    ("name", "settings"),
    [("original", {}), ("top_p", {"p": 0.55}), ("max_rank", {"m": 7, "slots": 5})],
)
def test_misses_are_those_of_slow_caches(engine, name, settings):
    """A cache a layer, empty at each window's start; a warm start counts what follows the prompt."""
    for start, prompt in (("cold", 0), ("warm", 12)):
        cache = CacheSetup(slots=5, start=start)
        result, found = evaluated(engine, name, settings, WINDOWS.after(prompt), cache)
        misses, uses, tokens = np.zeros(LAYERS), np.zeros(LAYERS), 0
        for w in range(3):
            policy = make_routing(name, settings)
            _, reading = engine.hidden_states(policy, IDS[w : w + 1], sequence=w, prompt=prompt)
            for place, layer in enumerate(reading.layers.values()):
                slow = SlowCache(EXPERTS, 5, "lru")
                for t, chosen in enumerate(layer.chosen.tolist()):
                    experts = [e for e in chosen if e != NONE]
                    missed = slow.serve(experts)
                    if t >= prompt:
                        misses[place] += missed
                        uses[place] += len(experts)
            tokens += 40 - prompt
        assert found["miss_rate"]["value"] == pytest.approx(misses.sum() / uses.sum())
        assert found["misses_per_token"]["value"] == pytest.approx(misses.sum() / tokens)
        assert found["experts_per_token"]["value"] == pytest.approx(uses.sum() / tokens / LAYERS)
        size = engine.anatomy.layers[0].expert_bytes
        assert size == 3 * 24 * 48 * 4
        assert found["miss_bytes_per_token"]["value"] == pytest.approx(misses.sum() / tokens * size)
        for place in range(LAYERS):
            expected = misses[place] / uses[place]
            assert found[f"miss_rate_{place:02d}"]["value"] == pytest.approx(expected)
        assert len(result.windows["miss_rate"]) == 3


def test_a_policy_that_looks_at_a_cache_brings_its_own(engine):
    policy = {"m": 8, "slots": 6, "eviction": "lfu"}
    _, own = evaluated(engine, "max_rank", policy, cache=CacheSetup(slots=4))
    _, same = evaluated(engine, "max_rank", policy, cache=CacheSetup(slots=8))
    assert own["miss_rate"] == same["miss_rate"]
    _, blind = evaluated(engine, "original", {}, cache=CacheSetup(slots=8))
    _, smaller = evaluated(engine, "original", {}, cache=CacheSetup(slots=4))
    assert blind["miss_rate"]["value"] < smaller["miss_rate"]["value"]


def test_a_cache_below_k_and_a_j_of_k_are_said(engine, caplog):
    with pytest.raises(UserError, match="cache of 2 of the layer's 8 experts cannot serve"):
        evaluated(engine, "original", {}, cache=CacheSetup(share=0.25))
    evaluated(engine, "cache_prior", {"top_j": 4})
    assert "never changes anything; lower top_j" in caplog.text


def test_sensitivities_are_the_mean_squared_gradients(engine):
    """Against a difference quotient: the loss moves by g·δ when one layer's routed output is moved by δ."""
    ids = IDS[:1, :12]
    got = layer_sensitivities(engine.anatomy, [ids])
    assert np.mean(list(got.values())) == pytest.approx(1)
    wide = RoutedEngine(find_moe(tiny_moe("qwen2_moe", dtype=torch.float64)))
    squares = {}
    for index, layer in wide.anatomy.layers.items():
        shape, generator = (12, 48), torch.Generator().manual_seed(index)
        estimates = []
        for _ in range(60):  # E[(g·δ)²] over random signs δ is the sum of g²
            delta = torch.randint(0, 2, shape, generator=generator).double() * 2 - 1
            values = []
            for sign in (1, -1):
                hook = layer.experts.register_forward_hook(
                    lambda m, a, out, s=sign, d=delta: out + s * 1e-5 * d.view_as(out)
                )
                with torch.inference_mode():
                    logits = wide.model(input_ids=ids).logits[0, :-1]
                hook.remove()
                values.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
            estimates.append(float((values[0] - values[1]) / 2e-5) ** 2)
        squares[index] = np.mean(estimates)
    mean = np.mean(list(squares.values()))
    for index, value in got.items():
        assert value == pytest.approx(squares[index] / mean, rel=0.5)


def test_adapmoe_is_calibrated_in_a_cell_and_drops_experts(home, moe_folder):
    record = measured(home, moe_folder, "adapmoe", {"theta": 0.02, "calibration_tokens": 256})
    assert 1 <= record["experts_per_token"] < TOP_K
    more = measured(home, moe_folder, "adapmoe", {"theta": 0.2, "calibration_tokens": 256})
    assert more["experts_per_token"] < record["experts_per_token"]
    assert record["calibration_overlap"] == more["calibration_overlap"] < 0.01
    assert record["settings"]["calibration"] == "prose"  # what stands in where no data root is
    assert len(list((home.root / "calibrations").iterdir())) == 1  # one calibration serves every θ
    assert {info.description["policy"] for info in routing_records(home)} >= {"adapmoe"}


def test_adaptive_k_gets_near_the_mean_that_is_asked_for(home, moe_folder):
    """On other text than it was fitted on; on that very text it is exact (test_routing_policies)."""
    found = measured(home, moe_folder, "adaptive_k", {"mean": 3, "calibration_tokens": 256}, tokens=256)
    assert found["experts_per_token"] == pytest.approx(3, abs=0.35)
    assert found["calibration_overlap"] < 0.01


def test_adapmoe_is_never_fitted_on_what_it_is_evaluated_on(home, moe_folder, tmp_path):
    """A text that is shorter than what calibration reads is all evaluated: a refusal, in both evaluations."""
    short = tmp_path / "short.txt"
    short.write_text(Laboratory(home, None, "cpu", 1).text("prose").content[:4000])
    settings = {"theta": 0.02, "calibration": str(short)}
    with pytest.raises(UserError, match=r"13-token runs that are evaluated are in what AdapMoE gating"):
        measured(home, moe_folder, "adapmoe", settings, text=str(short), tokens=512, window=256)
    store = {"kind": "expert_store", "prompt": 64, "tokens": 128, "warm_up": 2, "rounds": 1}
    with pytest.raises(UserError, match=r"13-token runs that are evaluated are in what AdapMoE gating"):
        measured(home, moe_folder, "adapmoe", settings, text=str(short), window=None, **store)
    assert not home.experts.exists() or not list(home.experts.iterdir())


def test_the_calibration_text_is_in_an_adapmoe_cells_id(home, moe_folder, tmp_path):
    ids, text = set(), tmp_path / "text.txt"
    evaluation = {"kind": "routing", "text": "prose", "tokens": 64, "window": 32}
    for content in ("one", "two"):
        text.write_text(content)
        (plan,) = one_policy("x", str(moe_folder), "adapmoe", {"calibration": str(text)}, evaluation).plans()
        ids.add(Laboratory(home, None, "cpu", 1).resolve(plan).id)
    assert len(ids) == 2


def measured(home, folder, policy, settings, **changes):
    from backend.experiments.measure import measure_point

    evaluation = {"kind": "routing", "text": "prose", "tokens": 64, "window": 32} | changes
    evaluation = {name: value for name, value in evaluation.items() if value is not None}
    return measure_point(Laboratory(home, None, "cpu", 1), str(folder), policy, settings, evaluation)


def test_a_sweep_leaves_results_and_records(home, moe_folder):
    content = {
        "name": "moe",
        "model": str(moe_folder),
        "evaluation": {"kind": "routing", "text": "prose", "tokens": 64, "window": 32},
        "policies": [{"method": "original"}, {"method": "cache_prior", "lambda_": [0.1, 0.5], "slots": 5}],
    }
    sweep = Sweep.parse(content, "sweep file")
    folder = RunFolder.create(home, sweep, "sweep")
    assert run_sweep(folder, Laboratory(home, None, "cpu", 1), known_results(home)) == "done"
    with Store.open(home) as store:
        store.ingest()
        points = routing_points(store)
        points = points[points["run_id"] == folder.id]
        assert len(points) == 3
        measured = ["perplexity", "delta_nll", "kl", "miss_rate", "miss_bytes_per_token"]
        assert points[measured].notna().all(axis=None)
        assert queries.window_values(store, points["cell_id"].tolist(), "miss_rate").shape == (3, 2)
        # fidelity to a dense model is another thing: no page that compares densities finds these
        assert "tiny-moe" not in set(queries.evaluations(store)["model"])
        rate = points.set_index("policy")["miss_rate"]["original"]
    kept = [info for info in routing_records(home) if info.path.is_relative_to(home.root)]
    infos = {info.description["policy"]: info for info in kept}
    assert set(infos) == {"original", "cache_prior"}
    record = RoutingRecord.load(infos["original"].path)
    assert (record.tokens, record.experts, record.experts_per_token) == (64, EXPERTS, TOP_K)
    assert record.lengths == (32, 32)
    assert record.expert_bytes == 3 * 24 * 48 * 4
    assert record.traffic.sum() == 64 * LAYERS * TOP_K
    assert record.curve("lru").miss_rate(EXPERTS // 2) == pytest.approx(rate)
    assert infos["original"].provenance["packages"]["torch"]


def test_kinds_of_methods_models_and_evaluations_have_to_fit(moe_folder, tiny_folder, home):
    with pytest.raises(UserError, match=r"by fidelity, which takes mask policies.*\(expert_store, routing\)"):
        make_evaluation({}).admit(make_method("cache_prior", {}))
    with pytest.raises(
        UserError, match=r"DIP cannot be .* by routing, which takes routing policies.*fidelity"
    ):
        make_evaluation({"kind": "routing"}).admit(make_method("dip", {"density": 0.5}))
    with pytest.raises(UserError, match="follows a prompt"):
        make_evaluation({"kind": "routing", "start": "warm"})
    with pytest.raises(UserError, match="dense model: it has no experts"):
        measured(home, tiny_folder, "original", {})
    laboratory = Laboratory(home, None, "cpu", 1)
    with pytest.raises(UserError, match=r"mixture of experts.*take a routing policy"):
        _ = laboratory.subject(str(moe_folder), "float32").engine


def test_the_command_line_takes_the_evaluation_from_the_policy(home, moe_folder, tiny_folder, monkeypatch):
    monkeypatch.setenv("SPARSITY_LENS_HOME", str(home.root))

    def call(*arguments, status=0):
        common = ["--text", "prose", "--tokens", "64", "--window", "32", "--json"]
        done = CliRunner().invoke(app, ["measure", *map(str, arguments), *common])
        assert done.exit_code == status, done.stderr
        return json.loads(done.stdout) if status == 0 else done.stderr.strip()

    record = call(
        "--model", moe_folder, "--policy", "cache_prior", "--set", "lambda_=0.2", "--set", "slots=6"
    )
    assert {
        "perplexity", "nll", "delta_nll", "kl", "agreement", "scored_tokens", "miss_rate",
        "misses_per_token", "miss_bytes_per_token", "experts_per_token", "routing_change",
        "routing_agreement", "lost_mass", "miss_rate_00", "text_sha256", "seconds", "how",
    } <= set(record)  # fmt: skip
    assert record["scored_tokens"] == 62
    options = ["prompt=16", "start=warm", "slots=5"]
    said = [part for option in options for part in ("--option", option)]
    warm = call("--model", moe_folder, "--policy", "original", *said)
    assert warm["scored_tokens"] == 2 * 15
    for arguments, message in (
        (("--model", moe_folder, "--policy", "dip", "--set", "density=0.5"), "mixture of experts"),
        (("--model", tiny_folder, "--policy", "cache_prior"), "dense model: it has no experts"),
        (("--model", moe_folder, "--policy", "cache_prior", "--set", "slots=2"), "cannot serve a token"),
        (("--model", moe_folder, "--policy", "cache_prio"), "did you mean 'cache_prior'"),
    ):
        said = call(*arguments, status=2)
        assert message in said
        assert len(said.splitlines()) == 1
