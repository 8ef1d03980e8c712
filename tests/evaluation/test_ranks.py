"""Rank correlation and overlap against scipy and sets, and as a sweep stores them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from backend.errors import UserError
from backend.evaluation.ranks import rank_correlation, top_overlap
from backend.experiments.evaluations import make_evaluation
from backend.experiments.known import known_results
from backend.experiments.laboratory import Laboratory
from backend.experiments.runner import run_sweep
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import Sweep
from backend.results import Store, attribution
from backend.sparsity import make_policy


@given(st.integers(0, 10_000), st.floats(0.05, 1.0))
def test_both_are_what_scipy_and_sets_give(seed, keep):
    a, b = torch.randn(2, 3, 17, generator=torch.Generator().manual_seed(seed))
    got, shared = rank_correlation(a, b), top_overlap(a, b, keep)
    k = max(1, round(keep * 17))
    for row in range(3):
        assert float(got[row]) == pytest.approx(spearmanr(a[row], b[row]).statistic)
        tops = [set(v[row].topk(k).indices.tolist()) for v in (a, b)]
        assert float(shared[row]) == pytest.approx(len(tops[0] & tops[1]) / k)


def test_layers_are_stored_and_found(home, tiny_folder, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("made-up words " * 20)
    sweep = Sweep.parse(
        {
            "name": "ranks",
            "model": str(tiny_folder),
            "evaluation": {"kind": "ranks", "text": str(file), "tokens": 64, "window": 32},
            "policies": [{"method": ["dense_magnitude", "gxo"], "keep": 0.2}],
        },
        "sweep file",
    )
    folder = RunFolder.create(home, sweep, "sweep")
    assert run_sweep(folder, Laboratory(home, None, "cpu", 1), known_results(home)) == "done"
    with Store.open(home) as store:
        store.ingest()
        found = attribution.layer_values(store, "rank_correlation")
        found = found[found["text"] == str(file)]
        overlap = attribution.layer_values(store, "top_overlap")
    assert found.groupby("policy")["layer"].apply(list).to_dict() == {
        "dense_magnitude": [0, 1, 2],
        "gxo": [0, 1, 2],
    }
    same = found[found["policy"] == "dense_magnitude"]["value"]
    assert same.tolist() == pytest.approx([1.0] * 3)
    assert (found[found["policy"] == "gxo"]["value"] < 0.9).all()
    assert overlap["n"].max() >= 64


def test_a_method_without_scores_of_its_own_is_refused():
    evaluation = make_evaluation({"kind": "ranks", "prompt": 8})
    for name in ("dip", "prompt_attribution"):
        with pytest.raises(UserError, match="no scores of every token"):
            evaluation.check(make_policy(name, {"density": 0.5} if name == "dip" else {}))
