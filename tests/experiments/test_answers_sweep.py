"""A sweep of answers from its file to the store."""

import pytest

from backend.errors import UserError
from backend.experiments.evaluations import FidelityEvaluation, make_evaluation
from backend.experiments.known import known_results
from backend.experiments.laboratory import Laboratory
from backend.experiments.runner import run_sweep
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import Sweep
from backend.results import Store, queries
from backend.sparsity import make_policy


def run(home, content):
    sweep = Sweep.parse(content, "sweep file")
    sweep.plans()
    laboratory = Laboratory(home, None, "cpu", 1)
    return run_sweep(RunFolder.create(home, sweep, "sweep"), laboratory, known_results(home))


def test_answers_are_stored_with_errors_and_values_a_question(home, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("backend.home.SEED", tmp_path / "no-seed")
    file = tmp_path / "made-up.csv"
    file.write_text("Question\n" + "".join(f"Made-up {i}?\n" for i in range(4)))
    content = {
        "name": "answers",
        "model": str(tiny_folder),
        "evaluation": {
            "kind": "answers", "text": str(file), "questions": 3, "max_tokens": 6, "prompt": "instruct",
        },
        "policies": [{"method": "dense"}, {"method": "gxo", "keep": [0.2, 0.5], "label": ["own", "second"]}],
    }  # fmt: skip
    assert run(home, content) == "done"
    with Store.open(home) as store:
        store.ingest()
        points = queries.points(store, kind="answers")
        assert len(points) == 5
        assert points["bleu_stderr"].notna().all()
        assert points[["rouge_l", "token_agreement", "kl", "delta_nll", "mlp_density"]].notna().all(axis=None)
        values = queries.window_values(store, points["cell_id"].tolist(), "bleu")
        assert values.shape == (5, 3)
        # oracles on another footing than windows of a text: no page that compares fidelity finds them
        assert str(file) not in set(queries.evaluations(store)["text"])


def test_a_dense_prompt_is_a_setting_that_older_cells_do_not_have(llama):
    assert "prompt" not in FidelityEvaluation().canonical()
    with pytest.raises(UserError, match="must leave two tokens"):
        make_evaluation({"tokens": 64, "window": 16, "prompt": 15})
    with pytest.raises(UserError, match="makes its masks of a prompt"):
        make_evaluation({}).check(make_policy("prompt_attribution", {}))
    make_evaluation({"prompt": 128}).check(make_policy("prompt_attribution", {}))


def test_a_text_with_dense_prompts_scores_what_sparse_tokens_predict(home, tiny_folder, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("made-up words " * 20)
    content = {
        "name": "prompts",
        "model": str(tiny_folder),
        "evaluation": {"text": str(file), "tokens": 64, "window": 32, "prompt": 10},
        "policies": [{"method": "dense"}, {"method": "prompt_attribution", "keep": 0.5}],
    }
    assert run(home, content) == "done"
    with Store.open(home) as store:
        store.ingest()
        points = queries.points(store, text=str(file)).set_index("policy")
        assert queries.points(store, text=str(file), window=32).empty
        assert len(queries.points(store, text=str(file), window=32, prompt=10)) == 2
        assert str(file) not in set(queries.evaluations(store)["text"])
    assert points.loc["dense", "delta_nll"] == 0
    assert points["scored_tokens"].tolist() == [2 * 21, 2 * 21]
    assert points.loc["prompt_attribution", "mlp_density"] == pytest.approx(0.5)
    assert points.loc["prompt_attribution", "how"] == "measured"
