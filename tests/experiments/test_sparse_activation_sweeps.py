"""The sweep files of the sparse-activation page can be run as they are."""

import pytest

from backend.experiments.sweep import Sweep
from backend.experiments.sweep_files import sweep_files
from backend.home import REPOSITORY

FILES = sorted((REPOSITORY / "data" / "sweeps").glob("sparse-activation-*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_sweep_file_is_valid_and_named_as_its_file(path):
    sweep = Sweep.from_yaml(path)
    assert sweep.name == path.stem
    assert sweep.plans()


def test_the_papers_grid_is_whole():
    (path,) = [path for path in FILES if path.stem.endswith("forced")]
    plans = Sweep.from_yaml(path).plans()
    asked = {(plan.policy.name, getattr(plan.policy, "keep", None)) for plan in plans}
    metrics = {name for name, keep in asked if keep is not None}
    assert len(metrics) == 7
    assert all((name, share / 10) in asked for name in metrics for share in range(1, 10))


def test_a_sweep_file_says_what_it_is_for_and_how_it_is_run():
    files = sweep_files("sparse-activation")
    assert [file.path for file in files] == FILES
    for file in files:
        assert file.command == f"python -m backend sweep data/sweeps/{file.path.name}"
        assert f"{file.command}\n" in file.path.read_text()
        assert file.says.endswith("on one core.")
        assert "#" not in file.says
