"""The committed seed: real results, complete, and nothing that is not ours."""

import json

import pyarrow.parquet as pq
import pytest

from backend.calibrated import CalibratedMethod
from backend.evaluation.texts import WIKITEXT2_SHA256
from backend.experiments.recordings import load_recording, recordings
from backend.experiments.sweep import Sweep
from backend.home import REPOSITORY, SEED
from backend.methods import every_method
from backend.models import CATALOG
from backend.results import Store, queries
from backend.results.generations import generation, generation_runs, hurt, prompts_in
from backend.sparsity import METHODS

MEGABYTE = 1_000_000


@pytest.fixture
def store(home):
    with Store.open(home) as opened:
        yield opened


FILES = {
    "seed": "wikitext2-16k", "dip-ca": "dip-ca-4k", "dip-ca-headline": "dip-ca-16k", "int8": "int8-16k",
    "latency": "latency", "latency-int8": "latency-int8",
}  # fmt: skip
"""Sweeps by the folders of the seed with their results; those of sparse activation are named alike."""
FILES |= {
    path.stem: path.stem
    for path in (REPOSITORY / "data" / "sweeps").glob("*.yaml")
    if path.stem not in FILES and (SEED / path.stem).is_dir()
}


def canonical(settings):
    return json.dumps(settings, sort_keys=True)


def test_every_folder_of_the_seed_is_known():
    folders = {path.name for path in SEED.iterdir() if path.is_dir()}
    assert folders == {*FILES.values(), "generation-list", "recordings", "routing"}


@pytest.mark.parametrize("file", FILES)
def test_every_cell_of_the_seed_sweeps_is_there_when_the_program_first_opens(store, file):
    sweep = Sweep.from_yaml(REPOSITORY / "data" / "sweeps" / f"{file}.yaml")
    asked = {"version": sweep.evaluation.version, **sweep.evaluation.canonical()}
    points = queries.points(store, model=sweep.model, text=sweep.evaluation.text)
    there = {
        (row.policy, canonical(json.loads(row.settings)))
        for row in points[["policy", "settings", "evaluation"]].itertuples()
        if json.loads(row.evaluation) == asked
    }
    wanted = {(plan.policy.name, canonical(plan.policy.canonical())) for plan in sweep.plans()}
    assert wanted <= there


def test_the_seed_is_of_the_catalogs_models_and_the_raw_test_text(store):
    points = queries.points(store)
    known = {name: CATALOG[name].source.weights_sha256 for name in ("smollm2-135m", "smollm2-moe")}
    assert {tuple(pair) for pair in points[["model", "model_sha256"]].to_numpy()} == set(known.items())
    assert set(points.loc[points["text"] == "wikitext2", "text_sha256"]) == {WIKITEXT2_SHA256}
    assert (points.groupby("text")["text_sha256"].nunique() == 1).all()


def test_what_cannot_be_realised_is_an_oracles_number_and_nothing_else_is(store):
    points = queries.points(store)
    usable = points["policy"].map({name: m.realisable and m.label_free for name, m in METHODS.items()})
    assert (points["how"].eq("oracle") == ~usable.astype(bool)).all()
    assert not points.loc[points["how"] == "oracle", "speedup"].notna().any()


def test_what_is_fitted_shares_nothing_with_what_is_evaluated(store):
    fitted = [name for name, method in every_method().items() if issubclass(method, CalibratedMethod)]
    points = queries.points(store)
    cells = points.loc[points["policy"].isin(fitted), "cell_id"]
    found = store.rows(
        "SELECT cell_id, value FROM measurements SEMI JOIN latest USING (cell_id, run_id) "
        "WHERE metric = 'calibration_overlap'"
    )
    assert {cell for cell, _ in found} == set(cells)
    assert all(value < 0.01 for _, value in found)


def test_the_seed_says_what_it_should_say(store):
    """Findings that a reader would check first; the figures themselves are in the changelog."""
    points = queries.points(store, tokens=16_384, dtype="float32").set_index(["policy", "settings"])
    dense = points.loc["dense"].iloc[0]
    assert 20 < dense["perplexity"] < 26
    dip = points.loc["dip"].sort_values("mlp_density")
    assert dip["kl"].is_monotonic_decreasing
    assert (dip["delta_nll_stderr"] > 0).all()


def test_recordings_are_of_plain_dip_and_can_be_read(home):
    found = recordings(home)
    assert {info.description["policy"] for info in found} == {"dip"}
    assert len(found) >= 3
    for info in found:
        hooks = load_recording(info).hooks("lru")
        assert len(hooks) == 60


def test_the_seed_holds_no_text_but_our_own_and_stays_small(store):
    files = [path for path in SEED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6 * MEGABYTE
    ours = set((REPOSITORY / "data" / "prompts.txt").read_text().splitlines())
    assert {prompt for (prompt,) in store.rows("SELECT prompt FROM generations")} <= ours
    others = [path for path in files if not path.name.startswith("generation")]
    columns = {name for path in others for name in pq.read_schema(path).names}
    assert not columns & {"content", "token", "tokens_text", "ids", "prompt"}


def test_the_seed_texts_are_whole_and_say_what_they_should(store):
    """Every prompt of ours, dense and three policies, each token scored; the sparser DIP hurts more."""
    (run,) = generation_runs(store)["run_id"]
    prompts = prompts_in(store, run)
    assert len(prompts) == 12
    found = hurt(store, run)
    assert (found["form"] == "forced").all()
    by_prompt = found.pivot(index="item", columns="side", values="kl")
    assert (by_prompt[2] > by_prompt[1]).all()
    for item in range(len(prompts)):
        for side in generation(store, run, item).sides:
            for tokens in side.tokens.values():
                assert all(token["kl"] is not None for token in tokens)


def test_int8_costs_little_and_less_than_pruning_does(store):
    """Rounding to 8 bits: under 1 % of perplexity, dense and at half of the MLP weights alike."""
    points = queries.points(store, tokens=16_384, kind="fidelity").set_index(["policy", "settings", "dtype"])
    for key in (("dense", "{}"), ("dip", '{"density":0.5}')):
        full, small = (points.loc[(*key, dtype), "perplexity"] for dtype in ("float32", "int8"))
        assert abs(small / full - 1) < 0.01


def test_measured_speed_follows_what_is_read(store):
    """Not a time of this machine: the seed's own latencies, taken in turns with dense in one run."""
    points = queries.points(store, kind="latency", dtype="float32").set_index(["policy", "settings"])
    dip = points.loc["dip"].sort_values("mlp_density")
    assert (dip["speedup"].to_numpy()[:-1] > dip["speedup"].to_numpy()[1:] - 0.05).all()
    assert points.loc[("dip", '{"density":0.2}'), "speedup"] > 1.2
    assert points.loc[("dense", "{}"), "speedup"] == pytest.approx(1, abs=0.05)
    assert set(points["how"]) == {"measured"}
    for small in queries.points(store, kind="latency", dtype="int8").itertuples():
        full = points.loc[(small.policy, small.settings)]
        assert small.bytes_per_token == pytest.approx(full["bytes_per_token"] / 4, rel=0.01)
