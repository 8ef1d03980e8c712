"""Running sweeps in this process, on a tiny model from disk and Python's own prose."""

import json
import subprocess
import sys

import pytest

from backend.errors import UserError
from backend.experiments.events import EventLog
from backend.experiments.known import known_results
from backend.experiments.laboratory import Laboratory
from backend.experiments.measure import measure_point
from backend.experiments.runner import run_sweep
from backend.experiments.runs import Cancelled, RunFolder, latest_unfinished
from backend.experiments.sweep import Sweep
from backend.home import REPOSITORY

MEASURE = """
import json, sys
from backend.experiments.laboratory import Laboratory
from backend.experiments.measure import measure_point
from backend.home import Home
laboratory = Laboratory(Home.resolve(sys.argv[1]), device="cpu")
evaluation = {"text": "prose", "tokens": 64, "window": 16}
print(json.dumps(measure_point(laboratory, sys.argv[2], "dip", {"density": 0.4}, evaluation)))
"""


@pytest.fixture
def laboratory(home):
    return Laboratory(home, device="cpu")


def sweep_of(folder, densities=(0.3, 0.6), name="tiny", tokens=64):
    return Sweep.parse(
        {
            "name": name,
            "model": str(folder),
            "evaluation": {"text": "prose", "tokens": tokens, "window": 16},
            "policies": [{"method": "dip", "density": list(densities)}],
        },
        "sweep",
    )


def run(laboratory, sweep, folder=None, **kwargs):
    folder = folder or RunFolder.create(laboratory.home, sweep, "sweep")
    status = run_sweep(folder, laboratory, known_results(laboratory.home), **kwargs)
    return folder, status


def kinds(folder, *wanted):
    return [event["kind"] for event in folder.events() if event["kind"] in wanted]


def test_a_sweep_leaves_its_measurements_windows_and_provenance_behind(laboratory, tiny_folder):
    folder, status = run(laboratory, sweep_of(tiny_folder))
    events = folder.events()
    finished = [event for event in events if event["kind"] == "cell_finished"]
    assert status == "done"
    assert len(finished) == 2
    assert {each["metric"] for each in finished[0]["measurements"]} == {
        "perplexity", "nll", "delta_nll", "kl", "agreement",
        "mlp_density", "model_density", "bytes_per_token",
    }  # fmt: skip
    assert len(finished[0]["windows"]["nll"]) == 4
    assert finished[0]["description"]["settings"] == {"density": 0.3}
    provenance = events[0]["provenance"]
    assert provenance["packages"]["torch"].startswith("2.")
    assert provenance["device"] == "cpu"
    assert provenance["threads"] >= 1


def test_run_twice_a_cell_is_found_not_run(laboratory, tiny_folder):
    first, _ = run(laboratory, sweep_of(tiny_folder))
    again, status = run(laboratory, sweep_of(tiny_folder, (0.3, 0.9)))
    assert status == "done"
    assert kinds(again, "cell_found", "cell_started") == ["cell_found", "cell_started"]
    found = next(event for event in again.events() if event["kind"] == "cell_found")
    assert found["run"] == first.id


def test_a_cancelled_sweep_keeps_its_cells_and_resumes_where_it_was(laboratory, tiny_folder):
    sweep = sweep_of(tiny_folder)
    calls = []

    def cancel_in_the_second_cell():
        calls.append(1)
        if len(calls) == 7:
            raise Cancelled

    folder, status = run(laboratory, sweep, checkpoint=cancel_in_the_second_cell)
    assert status == "cancelled"
    assert kinds(folder, "cell_finished") == ["cell_finished"]
    _, status = run(laboratory, sweep, folder)
    assert status == "done"
    assert kinds(folder, "cell_finished", "cell_found") == ["cell_finished", "cell_found", "cell_finished"]


def test_the_same_cell_gives_the_same_numbers_in_a_new_process(laboratory, tiny_folder, tmp_path):
    folder, _ = run(laboratory, sweep_of(tiny_folder, (0.4,)))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "other"), str(tiny_folder)],
        capture_output=True,
        check=True,
        cwd=REPOSITORY,
    )
    other = json.loads(done.stdout)
    here = next(event for event in folder.events() if event["kind"] == "cell_finished")
    nll = next(each["value"] for each in here["measurements"] if each["metric"] == "nll")
    assert other["nll"] == pytest.approx(nll, abs=1e-9)


def test_a_cell_that_cannot_run_is_said_and_the_others_are_kept(laboratory, tiny_folder):
    sweep = sweep_of(tiny_folder)
    wrong = {"method": "dip", "input_keep": [[0.5] * 9], "neuron_keep": 0.5}
    sweep = Sweep.parse({**sweep.model_dump(), "policies": [*sweep.policies, wrong]}, "sweep")
    folder, status = run(laboratory, sweep)
    assert status == "failed"
    assert folder.failure() == "dip was given 9 values per layer, but the model has 3 layers."
    assert kinds(folder, "cell_finished") == ["cell_finished"] * 2


def test_a_missing_model_ends_the_run_with_a_sentence(laboratory, tmp_path):
    with pytest.raises(UserError):
        run(laboratory, sweep_of(tmp_path / "none"))
    (folder,) = (RunFolder(path) for path in laboratory.home.runs.iterdir())
    assert folder.finished()
    assert "none" in folder.failure()


def test_measure_point_gives_the_contracts_keys(laboratory, tiny_folder):
    evaluation = {"text": "prose", "tokens": 64, "window": 16}
    first = measure_point(laboratory, str(tiny_folder), "dip", {"density": 0.5}, evaluation)
    again = measure_point(laboratory, str(tiny_folder), "dip", {"density": 0.5}, evaluation)
    assert {
        "perplexity", "nll", "nll_stderr", "delta_nll", "delta_nll_stderr", "kl", "kl_stderr", "agreement",
        "scored_tokens", "mlp_density", "model_density", "text_sha256", "seconds",
    } <= set(first)  # fmt: skip
    assert first["scored_tokens"] == 60
    assert again == first
    assert len(list(laboratory.home.runs.iterdir())) == 1


def test_a_torn_last_line_is_cut_before_the_next_event(home, tiny_folder):
    folder = RunFolder.create(home, sweep_of(tiny_folder), "sweep")
    folder.log().append("message", message="whole")
    with (folder.path / "events.jsonl").open("ab") as file:
        file.write(b'{"at":"2026-01-01T00:00:00+00:00","kind":"cell_fini')
    folder.log().append("message", message="after")
    assert [event["message"] for event in folder.events()] == ["whole", "after"]


def fill(log):
    for number in range(10_000):
        log.append("message", message=f"{number} " + "x" * 100)


def test_a_full_disk_stops_the_run_with_a_sentence_and_loses_nothing(home, tiny_folder, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        log = EventLog(small)
        with pytest.raises(
            UserError, match=r"cannot be written .*(No space left|space).* Make room, then resume"
        ):
            fill(log)
        lines = (small / "events.jsonl").read_bytes().split(b"\n")
        assert lines[-1] == b""
        numbers = [int(json.loads(line)["message"].split()[0]) for line in lines[:-1]]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 100
    finally:
        subprocess.run(["umount", small], check=True)


def test_latest_unfinished_finds_this_sweeps_interrupted_run_only(laboratory, tiny_folder):
    sweep = sweep_of(tiny_folder)
    assert latest_unfinished(laboratory.home, sweep) is None
    interrupted = RunFolder.create(laboratory.home, sweep, "sweep")
    interrupted.log().append("message", message="then the power went")
    RunFolder.create(laboratory.home, sweep_of(tiny_folder, name="other"), "sweep")
    assert latest_unfinished(laboratory.home, sweep) == interrupted
    run(laboratory, sweep, interrupted)
    assert latest_unfinished(laboratory.home, sweep) is None
