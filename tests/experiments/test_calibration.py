"""Policies fitted in a run: kept in the home, on a text that is not evaluated, and part of a cell's id."""

import hashlib
import json

import pytest

from backend.errors import UserError
from backend.experiments.calibration import calibrate
from backend.experiments.known import known_results
from backend.experiments.laboratory import Laboratory
from backend.experiments.runner import run_sweep
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import Sweep, one_policy
from backend.sparsity import make_policy

FITTED = {"calibration": "prose", "calibration_tokens": 256, "keep": 0.5}


@pytest.fixture
def laboratory(home):
    return Laboratory(home, None, "cpu", 1)


@pytest.mark.parametrize(
    "evaluation",
    [
        {"text": "prose", "tokens": 64, "window": 32},
        {"kind": "latency", "text": "prose", "prompt": 8, "tokens": 64, "warm_up": 1, "rounds": 1},
        {"kind": "answers", "text": "QUESTIONS", "questions": 2, "max_tokens": 4, "prompt": "instruct"},
    ],
    ids=["fidelity", "latency", "answers"],
)
@pytest.mark.parametrize("name", ["cats", "predictor"])
def test_every_evaluation_fits_first(name, evaluation, laboratory, tiny_folder, tmp_path):
    questions = tmp_path / "made-up.csv"
    questions.write_text("Question\nMade-up one?\nMade-up two?\n")
    evaluation = evaluation | ({"text": str(questions)} if evaluation["text"] == "QUESTIONS" else {})
    content = {
        "name": "fitted",
        "model": str(tiny_folder),
        "evaluation": evaluation,
        "policies": [{"method": name, **FITTED}],
    }
    folder = RunFolder.create(laboratory.home, Sweep.parse(content, "sweep"), "sweep")
    assert run_sweep(folder, laboratory, known_results(laboratory.home)) == "done", folder.failure()
    (done,) = [event for event in folder.events() if event["kind"] == "cell_finished"]
    found = {each["metric"]: each["value"] for each in done["measurements"]}
    assert found["calibration_overlap"] < 0.01
    assert 0 < found["mlp_density"] < 1.6
    assert len(list((laboratory.home.root / "calibrations").glob("*.safetensors"))) == 1


def fit(laboratory, folder, name="cats", evaluated=((1, 2, 3),), **settings):
    return calibrate(laboratory, str(folder), "float32", make_policy(name, FITTED | settings), evaluated)


def test_what_was_fitted_is_kept_by_what_decides_it(laboratory, tiny_folder, tmp_path, monkeypatch):
    first = fit(laboratory, tiny_folder)
    fit(laboratory, tiny_folder, keep=0.4)
    fit(laboratory, tiny_folder, calibration_tokens=512)
    files = {path.name for path in (laboratory.home.root / "calibrations").iterdir()}
    assert len(files) == 3
    elsewhere = tmp_path / "the same text.txt"
    elsewhere.write_text(laboratory.text("prose").content)
    engine = laboratory.subject(str(tiny_folder), "float32").engine
    monkeypatch.setattr(type(engine), "calibrate", lambda *given: pytest.fail("it was kept"))
    for again in (fit(laboratory, tiny_folder), fit(laboratory, tiny_folder, calibration=str(elsewhere))):
        assert {name: float(value) for name, value in again.fitted.items()} == {
            name: float(value) for name, value in first.fitted.items()
        }
    assert {path.name for path in (laboratory.home.root / "calibrations").iterdir()} == files


def test_a_policy_without_calibration_has_none(laboratory):
    """And no model is loaded for it."""
    found = calibrate(laboratory, "nowhere", "float32", make_policy("dip", {"density": 0.5}), [])
    assert (found.fitted, found.overlap) == (None, None)


def test_a_text_that_is_evaluated_is_no_calibration_text(laboratory, tiny_folder):
    tokenizer = laboratory.subject(str(tiny_folder), "float32").loaded.tokenizer
    read = tokenizer(laboratory.text("prose").content[-3000:])["input_ids"]
    with pytest.raises(UserError, match="of the 13-token runs that are evaluated are in what CATS is fitted"):
        fit(laboratory, tiny_folder, evaluated=[read])


def test_a_home_that_cannot_be_written_gets_a_sentence(laboratory, tiny_folder):
    (laboratory.home.root / "calibrations").write_text("in the way")
    with pytest.raises(UserError, match="What was fitted cannot be written to"):
        fit(laboratory, tiny_folder)


def test_without_a_data_root_the_default_is_pythons_prose(home, tiny_folder, tmp_path):
    evaluation = {"text": "prose", "tokens": 64, "window": 32}
    (plan,) = one_policy("x", str(tiny_folder), "cats", {"keep": 0.5}, evaluation).plans()
    assert Laboratory(home, None, "cpu", 1).resolve(plan).policy.calibration == "prose"
    train = tmp_path / "wikitext2" / "wiki.train.raw.head.txt"
    train.parent.mkdir()
    train.write_text("made up")
    cell = Laboratory(home, tmp_path, "cpu", 1).resolve(plan)
    assert cell.policy.calibration == "wikitext2_train"
    assert cell.calibration_sha256 == hashlib.sha256(b"made up").hexdigest()


def test_the_calibration_text_decides_a_cells_id(laboratory, tiny_folder, tmp_path):
    text = tmp_path / "text.txt"
    evaluation = {"text": "prose", "tokens": 64, "window": 32}
    ids = []
    for content in ("one", "two"):
        text.write_text(content)
        settings = FITTED | {"calibration": str(text)}
        (plan,) = one_policy("x", str(tiny_folder), "cats", settings, evaluation).plans()
        ids.append(Laboratory(laboratory.home, None, "cpu", 1).resolve(plan))
    assert ids[0].id != ids[1].id
    (plan,) = one_policy("x", str(tiny_folder), "dip", {"density": 0.5}, evaluation).plans()
    assert "calibration" not in json.dumps(laboratory.resolve(plan).identity())
