"""The command line's contract: keys, units, exit status 2 with one sentence on bad input."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from backend.cli import app
from backend.home import REPOSITORY

CONTRACT = {
    "perplexity", "nll", "nll_stderr", "delta_nll", "delta_nll_stderr", "kl", "kl_stderr", "agreement",
    "scored_tokens", "mlp_density", "model_density", "text_sha256", "seconds",
}  # fmt: skip
SWEEP = """
name: tiny
model: {model}
evaluation: {{text: prose, tokens: 64, window: 16}}
policies:
  - method: dense
  - method: glu_pruning
    keep: [0.25, 0.75]
"""


@pytest.fixture
def backend(home, monkeypatch):
    monkeypatch.setenv("SPARSITY_LENS_HOME", str(home.root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*arguments, status=0):
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exit_code == status, done.stderr
        return done.stdout if status == 0 else done.stderr.strip()

    return call


def tiny_measure(folder):
    return ["measure", "--model", folder, "--text", "prose", "--tokens", 64, "--window", 16]


def test_measure_prints_one_json_object_and_finds_it_the_second_time(backend, home, tiny_folder):
    call = [*tiny_measure(tiny_folder), "--policy", "dip", "--set", "density=0.5", "--json"]
    record = json.loads(backend(*call))
    assert set(record) >= CONTRACT
    assert record["scored_tokens"] == 60
    assert record["settings"] == {"density": 0.5}
    environment = {**os.environ, "SPARSITY_LENS_HOME": str(home.root)}
    command = [sys.executable, "-m", "backend", *map(str, call)]
    again = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=True
    )
    assert json.loads(again.stdout) == record


def test_measure_takes_stride_seed_and_lists(backend, tiny_folder):
    call = [*tiny_measure(tiny_folder), "--stride", 8, "--policy", "dip", "--json"]
    shares = ["--set", "input_keep=[0.5,0.6,0.7]", "--set", "neuron_keep=0.4"]
    assert json.loads(backend(*call, *shares))["scored_tokens"] == 15 + 3 * 8
    random = [*tiny_measure(tiny_folder), "--policy", "random", "--set", "keep=0.5", "--json", "--seed"]
    assert json.loads(backend(*random, 1))["kl"] != json.loads(backend(*random, 2))["kl"]


def test_a_sweep_runs_and_its_results_come_out_in_every_format(backend, tiny_folder, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.format(model=tiny_folder))
    record = json.loads(backend("sweep", file, "--json"))
    assert (record["status"], record["cells"]) == ("done", 3)
    assert "done, 3 cells" in backend("sweep", file, "--resume")

    rows = json.loads(backend("results", "--where", f"run={record['run']}", "--json"))["measurements"]
    assert len(rows) == 3 * 8
    assert set(rows[0]) == {
        "model", "policy", "settings", "text", "metric", "value", "stderr", "n", "unit", "how", "run",
    }  # fmt: skip
    table = backend("results", "--where", f"run={record['run']}")
    assert table.splitlines()[0].split() == [*rows[0]]
    backend("results", "--format", "parquet", "-o", tmp_path / "all.parquet")
    assert (tmp_path / "all.parquet").read_bytes()[:4] == b"PAR1"
    backend("export", record["run"], "-o", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "measurements.parquet").is_file()


def test_simulate_gives_the_papers_dense_streaming_rate(backend):
    call = [
        "simulate",
        "--device",
        "apple-a18",
        "--shape",
        "phi-3-medium",
        "--dram-gb",
        4,
        "--paper-mode",
        "--json",
    ]
    dense = json.loads(backend(*call, "--policy", "dense"))
    assert dense["tokens_per_s"] == pytest.approx(0.293, abs=5e-4)
    assert dense["how"] == "simulated"
    half = json.loads(backend(*call, "--policy", "dip", "--set", "density=0.5"))
    assert {"tokens_per_s", "dense_tokens_per_s", "hit_rate", "memory_gb", "seconds_by_part"} <= set(half)
    assert half["hits"].startswith("assumed")


@pytest.mark.real_data
def test_misscurve_gives_the_measured_rates_of_a_real_trace(backend, data_root):
    trace = data_root / "traces" / "qwen.csv"
    for policy, expected in (("lru", 0.478), ("lfu", 0.439), ("belady", 0.327)):
        record = json.loads(backend("misscurve", trace, "--policy", policy, "--warm", "--json"))
        assert record["miss_rate_by_capacity"]["12"] == pytest.approx(expected, abs=5e-4)


def test_methods_and_models_are_listed_for_people_and_for_programs(backend):
    methods = {each["method"]: each for each in json.loads(backend("methods", "--json"))["methods"]}
    assert {
        "dense", "glu_pruning", "glu_oracle", "gate_pruning", "up_pruning", "random", "dip", "magnitude_norm",
    } <= set(methods)  # fmt: skip
    assert methods["dip"]["paper"] == "Federici et al., arXiv 2412.01380"
    assert not methods["glu_oracle"]["realisable"]
    (keep,) = methods["glu_pruning"]["settings"]
    assert (keep["minimum"], keep["maximum"], keep["unit"]) == (0, 1, "share of neurons")
    assert "DIP" in backend("methods")
    assert "smollm2-135m" in backend("models")
    assert json.loads(backend("models", "--json"))["models"][0]["licence"] == "Apache-2.0"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["measure", "--policy", "dib"], "There is no method called 'dib'; did you mean 'dip'?"),
        (["measure", "--policy", "dip", "--set", "density=7"], "dip: density: Input should be less than"),
        (["measure", "--policy", "dip", "--set", "density"], "--set takes key=value, not 'density'."),
        (["measure", "--policy", "dense", "--text", "nowhere.txt"], "There is no text or text file called"),
        (["measure", "--policy", "dense", "--tokens", "8"], "evaluation: tokens (8) must hold at least one"),
        (["measure", "--policy", "dense", "--text", "prose", "--model", "smollm"], "smollm"),
        (["measure", "--policy", "dense", "--text", "prose", "--device", "tpu"], "There is no device 'tpu'"),
        (["sweep", "none.yaml"], "The sweep file none.yaml cannot be read"),
        (["results", "--where", "modl=x"], "Results have no column 'modl'; did you mean 'model'?"),
        (["results", "--format", "xlsx"], "Results cannot be written as 'xlsx'"),
        (["export", "none", "-o", "x"], "none"),
        (["misscurve", "none.csv"], "none.csv"),
        (["misscurve", "none.csv", "--policy", "fifo"], "There is no eviction rule 'fifo'"),
        (
            ["simulate", "--device", "a18", "--shape", "phi-3-medium", "--dram-gb", "4", "--policy", "dense"],
            "a18",
        ),
        (["record", "--policy", "dense", "--text", "nowhere.txt"], "masks no MLP"),
    ],
)
def test_bad_input_exits_2_with_one_sentence(backend, arguments, sentence):
    said = backend(*arguments, status=2)
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_the_command_line_does_not_import_torch_until_it_computes(backend):
    code = "import sys, backend.cli, backend.results, backend.figures, backend.experiments.client; "
    code += "from backend.sparsity import METHODS; [m.describe() for m in METHODS.values()]; "
    code += "print('torch' in sys.modules or 'transformers' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert done.stdout.strip() == "False"


def test_a_verdict_is_said_from_stored_answers(backend, tiny_folder, tmp_path):
    assert "Nothing is stored of no-such-model" in backend("verdict", "--model", "no-such-model", status=2)
    questions = tmp_path / "made-up.csv"
    questions.write_text("Question\n" + "".join(f"Made-up {i}?\n" for i in range(3)))
    file = tmp_path / "answers.yaml"
    asked = f"{{kind: answers, text: {questions}, questions: 3, max_tokens: 6, prompt: instruct}}"
    file.write_text(
        f"name: answers\nmodel: {tiny_folder}\nevaluation: {asked}\npolicies:\n"
        "  - method: corrected_gxo\n    keep: 0.2\n    label: [own, second]\n"
    )
    backend("sweep", file)
    found = json.loads(backend("verdict", "--model", tiny_folder.name, "--json"))
    (verdict,) = found["verdicts"]
    assert verdict["protocol"] == "forced answers"
    assert verdict["loss"]["n"] == 3
    assert set(verdict["wrong"]) == {"second"}
    assert found["answer"].startswith(f"On {tiny_folder.name}, “80 % sparsity")
