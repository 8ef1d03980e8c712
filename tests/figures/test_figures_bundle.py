"""The bundle: what it holds, that it redraws itself alone, and which papers it cites."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from backend.figures.drawing.text import SERIF_FILES
from backend.figures.paper import PaperFigure, RunRecord, references
from backend.figures.paper.bundle import bundle, bundle_files
from backend.methods import every_method
from tests.figures.paper_samples import curves_spec, every_kind, heat_spec

ALLOWED = (
    "matplotlib", "pandas", "pyarrow", "numpy", "dateutil", "six", "pytz", "tzdata", "contourpy", "cycler",
    "fontTools", "kiwisolver", "packaging", "PIL", "pyparsing", "mpl_toolkits", "drawing", "pylab",
)  # fmt: skip
"""Matplotlib, pandas, pyarrow and what they require."""
GUARD = """
import sys, runpy
from importlib.machinery import PathFinder

class Guard:
    @staticmethod
    def find_spec(name, path=None, target=None):
        first = name.split(".")[0]
        if first not in ALLOWED and first not in sys.stdlib_module_names:
            found = PathFinder.find_spec(name, path)
            if found is not None and "site-packages" in str(found.origin or found.submodule_search_locations):
                raise ModuleNotFoundError(f"No module named {{name!r}} (blocked)", name=name)
        return None

ALLOWED = {allowed!r}
sys.meta_path.insert(0, Guard)
sys.path.insert(0, {folder!r})
sys.argv = ["reproduce.py", *{arguments!r}]
runpy.run_path({script!r}, run_name="__main__")
"""


def reproduce(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a bundle's script where only the pinned packages and theirs can be imported."""
    script = str(folder / "reproduce.py")
    code = GUARD.format(allowed=ALLOWED, folder=str(folder), script=script, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    with zipfile.ZipFile(io.BytesIO(bundle(every_kind()))) as archive:
        archive.extractall(folder)
    return folder


def test_it_redraws_itself_byte_for_byte_with_three_packages_alone(unpacked: Path) -> None:
    done = reproduce(unpacked)
    assert (done.returncode, done.stdout.strip()) == (0, "Redrawn: the same bytes."), done.stderr
    drawn = sorted((unpacked / "redrawn").iterdir())
    assert [path.suffix for path in drawn] == [".pdf", ".png", ".svg"]
    for path in drawn:
        assert path.read_bytes() == (unpacked / path.name).read_bytes()


def test_letters_that_the_font_lacks_change_nothing(tmp_path: Path) -> None:
    figure = PaperFigure.of(curves_spec(), heat_spec()).changed(labels={"Method 0": "日本"})
    with zipfile.ZipFile(io.BytesIO(bundle(figure))) as archive:
        archive.extractall(tmp_path)
    assert reproduce(tmp_path).stdout.strip() == "Redrawn: the same bytes."


def test_the_guard_of_that_test_blocks_what_it_should(unpacked: Path) -> None:
    (unpacked / "reproduce2.py").write_text("import pydantic\n")
    code = GUARD.format(
        allowed=ALLOWED, folder=str(unpacked), script=str(unpacked / "reproduce2.py"), arguments=()
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "blocked" in done.stderr


def test_it_draws_from_the_csv_too_and_sees_what_changed_there(unpacked: Path) -> None:
    assert reproduce(unpacked, "--data", "data.csv").stdout.strip() == "Redrawn: the same bytes."
    changed = pd.read_csv(unpacked / "data.csv")
    changed.loc[changed["series"] == "Method 0", "y"] += 1
    changed.to_csv(unpacked / "changed.csv", index=False)
    done = reproduce(unpacked, "--data", "changed.csv", "--out", "other")
    assert done.returncode == 1
    assert "other bytes" in done.stdout


def test_it_needs_its_own_font(unpacked: Path) -> None:
    font = unpacked / "fonts" / SERIF_FILES[0]
    content = font.read_bytes()
    font.unlink()
    try:
        assert reproduce(unpacked).returncode != 0
    finally:
        font.write_bytes(content)


def test_the_same_figure_gives_the_same_zip() -> None:
    assert bundle(every_kind()) == bundle(every_kind())


def test_it_holds_what_a_submission_needs() -> None:
    run = RunRecord(run="run-1", commit="abc", device="cpu", packages={"torch": "2"}, seeds={"random": 0})
    figure = PaperFigure.of(curves_spec()).changed(runs=(run,))
    files = bundle_files(figure)
    assert {
        "quality.pdf", "quality.svg", "quality.png", "pgfplots/quality.tex", "pgfplots/quality.csv",
        "data.csv", "data.parquet", "table.tex", "table.md", "table.csv", "figure.json", "reproduce.py",
        "refs.bib", "README.md", "requirements.txt", "fonts/STIXGeneral.ttf", "fonts/LICENSE_STIX",
        "drawing/page.py",
    } <= set(files)  # fmt: skip
    assert PaperFigure.from_json(files["figure.json"]) == figure
    said = json.loads(files["figure.json"])
    assert said["runs"][0] | {"commit": "abc", "device": "cpu", "seeds": {"random": 0}} == said["runs"][0]
    assert said["panels"][0]["spec"]["provenance"]["filters"] == {"model": "test"}
    assert re.fullmatch(r"(\w+==[\d.]+\n){3}", files["requirements.txt"].decode())
    assert "Measured on a model that ran." in files["README.md"].decode()


def keys(figure: PaperFigure) -> list[str]:
    return re.findall(r"@\w+\{(\w+),", references.to_bibtex(figure).decode())


def test_refs_are_those_of_the_methods_that_appear_and_no_others() -> None:
    assert keys(PaperFigure.of(curves_spec(count=1))) == ["federici2024dip"]
    assert keys(PaperFigure.of(curves_spec(count=3))) == ["federici2024dip", "cheon2025countdown"]
    assert keys(PaperFigure.of(heat_spec())) == ["federici2024dip"]
    assert references.methods_of(every_kind()) == ["dip", "gate_pruning", "up_pruning", "glu_pruning"]


def test_every_registered_method_with_a_paper_has_an_entry() -> None:
    for name, method in every_method().items():
        numbers = references.papers_of(name)
        assert bool(numbers) == bool(method.paper), f"{name}: name its paper as 'arXiv 1234.56789'"
        missing = [number for number in numbers if number not in references.entries()]
        assert not missing, f"add {missing} to backend/figures/paper/references.bib"


def test_entries_are_whole() -> None:
    for number, entry in references.entries().items():
        assert entry.count("{") == entry.count("}"), number
        for field in ("title", "author", "year"):
            assert f"  {field} = {{" in entry, (number, field)
