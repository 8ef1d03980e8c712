import pytest

from backend.errors import UserError
from backend.experiments.cells import Cell
from backend.experiments.evaluations import EVALUATIONS, FidelityEvaluation
from backend.experiments.sweep import Sweep
from backend.sparsity import make_policy

GOOD = """
name: mine
model: smollm2-135m
evaluation: {text: prose, tokens: 512, window: 128}
policies:
  - method: dense
  - method: [gate_pruning, up_pruning]
    keep: [0.25, 0.5]
  - method: dip
    density: [0.5, 0.5]
  - method: dip
    input_keep: [[0.5, 0.6], 0.7]
    neuron_keep: 0.4
"""


def written(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_lists_make_their_product_and_each_cell_comes_once(tmp_path):
    plans = Sweep.from_yaml(written(tmp_path, GOOD)).plans()
    assert [(plan.policy.name, plan.policy.canonical()) for plan in plans] == [
        ("dense", {}),
        ("gate_pruning", {"keep": 0.25}),
        ("gate_pruning", {"keep": 0.5}),
        ("up_pruning", {"keep": 0.25}),
        ("up_pruning", {"keep": 0.5}),
        ("dip", {"density": 0.5}),
        ("dip", {"input_keep": [0.5, 0.6], "neuron_keep": 0.4}),
        ("dip", {"input_keep": 0.7, "neuron_keep": 0.4}),
    ]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("policies:", "polices:", "sweep file has no setting 'polices'; did you mean 'policies'"),
        ("method: dense", "method: dens", "no method called 'dens'; did you mean 'dense'"),
        ("density: [0.5, 0.5]", "density: [0.5, 1.5]", "dip: density: .* less than or equal to 1"),
        ("keep: [0.25, 0.5]", "keeps: [0.25]", "gate_pruning has no setting 'keeps'; did you mean 'keep'"),
        ("window: 128", "windw: 128", "evaluation has no setting 'windw'; did you mean 'window'"),
        ("tokens: 512", "tokens: 64", "evaluation: tokens \\(64\\) must hold at least one window \\(128\\)"),
        ("name: mine", "name: ../../etc", "name: must be letters"),
        ("name: mine", "name: [", "is no valid YAML \\(line"),
        ("model: smollm2-135m", "", "give either model or models"),
        ("  - method: dense", "  - keep: 1", "has no 'method'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path, old, new, sentence):
    assert old in GOOD
    with pytest.raises(UserError, match=sentence):
        Sweep.from_yaml(written(tmp_path, GOOD.replace(old, new)))


def test_a_missing_or_empty_file_gets_a_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        Sweep.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="must be a mapping"):
        Sweep.from_yaml(written(tmp_path, ""))


def test_too_many_cells_are_refused():
    values = [i / 20_000 for i in range(1, 10_002)]
    sweep = Sweep.parse(
        {"name": "big", "model": "m", "policies": [{"method": "dip", "density": values}]}, "sweep"
    )
    with pytest.raises(UserError, match="10,001 cells; at most 10,000"):
        sweep.plans()


def cell(**changes):
    parts = {
        "model": "m",
        "model_sha256": "a" * 64,
        "policy": make_policy("dip", {"density": 0.5}),
        "evaluation": FidelityEvaluation(text="prose", tokens=512, window=128),
        "text_sha256": "b" * 64,
    }
    return Cell(**(parts | changes))


def test_a_cells_id_depends_on_everything_that_decides_its_result_and_on_nothing_else():
    base = cell().id
    assert cell(model="another name of the same weights").id == base
    assert cell(evaluation=FidelityEvaluation(text="another/path/of/it", tokens=512, window=128)).id == base
    changed = [
        cell(model_sha256="c" * 64),
        cell(text_sha256="c" * 64),
        cell(policy=make_policy("dip", {"density": 0.6})),
        cell(policy=make_policy("glu_pruning", {"keep": 0.5})),
        cell(evaluation=FidelityEvaluation(text="prose", tokens=1024, window=128)),
        cell(evaluation=FidelityEvaluation(text="prose", tokens=512, window=64)),
        cell(evaluation=FidelityEvaluation(text="prose", tokens=512, window=128, stride=64)),
        cell(evaluation=FidelityEvaluation(text="prose", tokens=512, window=128, dtype="bfloat16")),
    ]
    assert len({base, *(each.id for each in changed)}) == 1 + len(changed)


def test_a_raised_version_runs_a_cell_again(monkeypatch):
    base = cell().id
    monkeypatch.setattr(type(cell().policy), "version", 2)
    again = cell().id
    monkeypatch.setattr(FidelityEvaluation, "version", 2)
    assert len({base, again, cell().id}) == 3


def test_ids_stay_as_they_are_so_that_stored_results_are_found():
    assert cell().id == "b7984148e9514894"


def test_an_evaluation_of_another_kind_survives_the_sweep_file_and_an_unknown_one_gets_a_sentence():
    asked = {"name": "x", "model": "m", "policies": [{"method": "dense"}]}
    with pytest.raises(UserError, match="no kind of evaluation called 'fidelty'; did you mean 'fidelity'"):
        Sweep.parse({**asked, "evaluation": {"kind": "fidelty"}}, "sweep")
    for kind, evaluation in EVALUATIONS.items():
        sweep = Sweep.parse({**asked, "evaluation": {"kind": kind, "dtype": "bfloat16"}}, "sweep")
        assert type(sweep.evaluation) is evaluation
        spec = sweep.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        assert Sweep.parse(spec, "sweep") == sweep
