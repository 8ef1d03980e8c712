"""Routing traces on the command line: in, out, and what is wrong in one sentence."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from backend.cli import app
from backend.residency import parse_route_trace
from tests.figures.moe_samples import EXPERTS, LAYERS, K, trace_text


@pytest.fixture
def backend(home, monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSITY_LENS_HOME", str(home.root))
    monkeypatch.setattr("backend.experiments.routing_records.SEED", tmp_path / "no-seed")

    def call(*arguments, status=0):
        done = CliRunner().invoke(app, [str(each) for each in arguments])
        assert done.exit_code == status, done.stderr
        return done.stdout if status == 0 else done.stderr.strip()

    return call


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "device.csv"
    path.write_text(trace_text())
    return path


def test_a_trace_goes_in_and_comes_out(backend, trace, tmp_path):
    record = json.loads(backend("import-trace", trace, "--json"))
    assert record == {
        "routing": record["routing"], "name": "device.csv", "layers": len(LAYERS), "experts": EXPERTS,
        "experts_per_token": K, "tokens": 32,
    }  # fmt: skip
    assert json.loads(backend("import-trace", trace, "--json")) == record  # found the second time
    for name in ("device.csv", record["routing"], record["routing"][:10]):
        out = tmp_path / "out.csv"
        said = backend("export-trace", name, "-o", out, "--slots", 8)
        assert "32 tokens of 3 layers" in said
        back, given = (parse_route_trace("x", p.read_bytes()) for p in (out, trace))
        assert back.chosen == given.chosen
        assert (back.expert_bytes, back.dense_bytes) == (given.expert_bytes, given.dense_bytes)
    rates = json.loads(backend("misscurve", out, "--json"))["miss_rate_by_capacity"]
    rows = [line.split(",") for line in out.read_text().splitlines() if line[0].isdigit()]
    missed = sum(row[7] == "0" for row in rows)  # what was not resident in the cache that --slots asks for
    assert missed / len(rows) == pytest.approx(rates["8"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["import-trace", "absent.csv"], "cannot be read"),
        (["export-trace", "device.csb", "-o", "x.csv"], "did you mean 'device.csv'?"),
        (["export-trace", "device.csv", "-o", "no/such/folder.csv"], "cannot be written"),
        (["export-trace", "device.csv", "-o", "x.csv", "--slots", "2"], "cannot serve a token that uses 4"),
        (["export-trace", "device.csv", "-o", "x.csv", "--slots", "8", "--eviction", "lur"],
         "did you mean 'lru'?"),
        (["export-trace", "device.csv", "-o", "x.csv", "--eviction", "lur"], "did you mean 'lru'?"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence(backend, trace, arguments, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend("import-trace", trace)
    said = backend(*arguments, status=2)
    assert sentence in said
    assert "\n" not in said


def test_without_any_routing_the_way_to_one_is_named(backend):
    said = backend("export-trace", "x", "-o", "y.csv", status=2)
    assert "none is kept: measure one, or import a trace" in said
