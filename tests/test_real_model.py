"""The default model on real text: the figures of the DIP specification, and what the seed was made with."""

import json

import pytest

from backend.experiments.laboratory import Laboratory
from backend.experiments.measure import measure_point
from backend.experiments.sweep import Sweep
from backend.home import REPOSITORY, SEED, Home

pytestmark = pytest.mark.real_model


@pytest.fixture(scope="module")
def laboratory(real_home, tmp_path_factory):
    """A fresh home that borrows the models of the real one, so that every cell is really run."""
    home = Home.resolve(tmp_path_factory.mktemp("home"))
    home.models.rmdir()
    home.models.symlink_to(real_home.models)
    return Laboratory(home, device="cpu")


def test_the_main_job_runs_on_pythons_own_prose(laboratory):
    """What a machine with nothing beside the clone can do."""
    evaluation = {"text": "prose", "tokens": 1024, "window": 256}
    dense = measure_point(laboratory, "smollm2-135m", "dense", {}, evaluation)
    half = measure_point(laboratory, "smollm2-135m", "dip", {"density": 0.5}, evaluation)
    oracle = measure_point(laboratory, "smollm2-135m", "glu_oracle", {"keep": 0.5}, evaluation)
    random = measure_point(laboratory, "smollm2-135m", "random", {"keep": 0.5}, evaluation)
    assert 5 < dense["perplexity"] < 40
    assert dense["delta_nll"] == dense["kl"] == 0
    assert oracle["kl"] < half["kl"] < random["kl"]
    assert half["mlp_density"] == pytest.approx(0.5, abs=0.002)
    assert half["delta_nll"] > 3 * half["delta_nll_stderr"]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("policy", "settings", "perplexity", "kl"),
    [("dense", {}, 23.24, 0.0), ("dip", {"density": 0.5}, 31.87, 0.340)],
)
def test_wikitext2_agrees_with_the_specifications_probes(
    data_root, laboratory, policy, settings, perplexity, kl
):
    """4 windows of 1,024. The probes ran with a tokenizer that cut digits otherwise: 1 % is allowed."""
    laboratory.data_root = data_root
    evaluation = {"text": "wikitext2", "tokens": 4096, "window": 1024}
    got = measure_point(laboratory, "smollm2-135m", policy, settings, evaluation)
    assert got["perplexity"] == pytest.approx(perplexity, rel=0.01)
    assert got["kl"] == pytest.approx(kl, abs=0.01)


def test_the_label_leaks_into_attributions_masks(laboratory):
    """The same method, the same share kept: made for the token that is scored, and for another one."""
    evaluation = {"text": "prose", "tokens": 256, "window": 128}

    def measured(policy, **settings):
        return measure_point(laboratory, "smollm2-135m", policy, {"keep": 0.2, **settings}, evaluation)

    own = measured("corrected_gxo")
    second = measured("corrected_gxo", label="second")
    magnitude = measured("dense_magnitude")
    assert own["agreement"] > magnitude["agreement"] + 0.1
    assert own["agreement"] > second["agreement"] + 0.3
    assert own["kl"] > magnitude["kl"]  # what agreement hides
    assert own["how"] == magnitude["how"] == "oracle"


@pytest.mark.real_data
def test_the_sweep_file_reproduces_the_seed(data_root, laboratory):
    """The first two windows of two seed cells, window by window, to 1e-4."""
    import pyarrow.parquet as pq

    bundle = SEED / "wikitext2-16k"
    cells = {row["cell_id"]: row for row in pq.read_table(bundle / "cells.parquet").to_pylist()}
    seeded = pq.read_table(bundle / "windows.parquet").to_pylist()
    sweep = Sweep.from_yaml(REPOSITORY / "data" / "sweeps" / "seed.yaml")
    assert len(cells) == len(sweep.plans())
    laboratory.data_root = data_root
    subject = laboratory.subject("smollm2-135m", "float32")
    plans = [
        plan for plan in sweep.plans() if plan.policy.canonical() in ({}, {"density": 0.5}, {"keep": 0.3})
    ]
    from backend.evaluation.fidelity import evaluate

    for plan in plans[:4]:
        cell = laboratory.resolve(plan)
        assert json.loads(cells[cell.id]["settings"]) == plan.policy.canonical()
        windows = evaluate(subject.engine, plan.policy, laboratory.reference(subject, plan.evaluation))
        next(windows)
        got = next(windows)
        for metric in ("nll", "kl"):
            expected = [
                row["value"]
                for row in sorted(seeded, key=lambda row: row["window_index"])
                if row["cell_id"] == cell.id and row["metric"] == metric and row["window_index"] < 2
            ]
            assert got.windows[metric] == pytest.approx(expected, abs=1e-4)
