"""Recipes: figures from the seed results, on the command line too; and saved figures."""

from __future__ import annotations

import errno
import io
import json
import sys
from pathlib import Path

import pytest
from matplotlib import image
from typer.testing import CliRunner

from backend.cli import app
from backend.errors import UserError
from backend.figures.paper import PaperFigure, saved, to_page
from backend.figures.paper.origin import with_runs
from backend.figures.recipes import RECIPES, FigureRecipe, Stored
from backend.home import REPOSITORY, Home
from backend.results import Store
from tests.figures.paper_samples import curves_spec, every_kind

GALLERY = sorted((REPOSITORY / "docs" / "gallery").glob("*.yaml"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """The seed results in a home of their own."""
    home = Home.resolve(tmp_path_factory.mktemp("seeded"))
    store = Store.open(home)
    return Stored(store, home)


def resolved(stored: Stored, *panels: dict[str, object], **more: object) -> PaperFigure:
    return FigureRecipe.parse({"title": "T", "panels": list(panels), **more}, "recipe").resolve(stored)


@pytest.mark.parametrize("path", GALLERY, ids=lambda path: path.stem)
def test_the_gallery_is_what_its_recipes_draw_now(path: Path, stored: Stored) -> None:
    sys.path.insert(0, str(REPOSITORY / "docs"))
    try:
        from gallery import drawn
    finally:
        sys.path.pop(0)
    pictures = (drawn(path, stored), path.with_suffix(".png").read_bytes())
    now, there = (image.imread(io.BytesIO(picture)) for picture in pictures)
    assert now.shape == there.shape, "run `make gallery`"
    # Not byte for byte: another processor's last digit may move a pixel's shade.
    assert abs(now - there).mean() < 0.002, "run `make gallery`"
    assert path.with_suffix(".png").stat().st_size < 200_000


@pytest.mark.parametrize("kind", list(RECIPES))
def test_every_kind_draws_from_the_seed(kind: str, stored: Stored) -> None:
    needed = {"read_out": {"at": 0.7}, "finding": {"which": "within_budget"}}
    figure = resolved(stored, {"kind": kind, **needed.get(kind, {})})
    spec = figure.panels[0].spec
    assert spec.series or spec.heat or spec.strip
    assert PaperFigure.from_json(figure.to_json()) == figure


def test_every_kind_says_what_its_settings_do() -> None:
    for kind in RECIPES.values():
        assert kind.__doc__
        assert all(field.help for field in kind.describe())


def test_a_figure_knows_its_runs_filters_and_versions(stored: Stored) -> None:
    figure = resolved(stored, {"kind": "trade_off", "tokens": 16384})
    assert {record.run for record in figure.runs} == set(figure.panels[0].spec.provenance.runs)
    for record in figure.runs:
        assert len(record.commit.rstrip("+")) == 40
        assert record.packages["torch"]
        assert record.device == "cpu"
        assert record.dtype == "float32"
    assert any("random" in record.seeds for record in figure.runs)
    assert figure.panels[0].spec.provenance.filters["tokens"] == "16384"
    assert with_runs(figure, stored.store) == figure


def test_small_multiples_make_a_panel_of_each_value(stored: Stored) -> None:
    figure = resolved(stored, {"kind": "trade_off", "title": "Text", "over": {"tokens": [4096, 16384]}})
    assert [panel.title for panel in figure.panels] == ["Text, 4096", "Text, 16384"]
    assert [panel.spec.provenance.filters["tokens"] for panel in figure.panels] == ["4096", "16384"]


def test_ranges_claims_and_tables_are_as_asked(stored: Stored) -> None:
    panel = {
        "kind": "trade_off", "tokens": 16384, "methods": ["dip", "random"], "y_range": [20, 40],
        "claims": [{"value": 23.5, "label": "claimed"}],
    }  # fmt: skip
    table = {"tokens": 16384, "at": [0.5, 0.9], "methods": ["dip", "gate_pruning"]}
    figure = resolved(stored, panel, table=table, settings={"venue": "icml", "span": "column"})
    spec = figure.panels[0].spec
    assert spec.y.range == (20, 40)
    assert spec.baselines[-1].role == "claim"
    assert to_page(figure).width_in == 3.25
    assert figure.table is not None
    assert [row.label for row in figure.table.rows] == ["Dense", "DIP", "Gate pruning"]


@pytest.mark.parametrize(
    ("panel", "sentence"),
    [
        ({"kind": "trade_of"}, "did you mean 'trade_off'"),
        ({}, "has no kind"),
        ({"kind": "trade_off", "qualty": "kl"}, "did you mean 'quality'"),
        ({"kind": "trade_off", "quality": "klx"}, "did you mean 'kl'"),
        ({"kind": "trade_off", "cost": "density"}, "did you mean"),
        ({"kind": "trade_off", "methods": ["dipp"]}, "did you mean 'dip"),
        ({"kind": "trade_off", "view": "Far"}, "no view"),
        ({"kind": "trade_off", "model": "gpt"}, "No results are stored for model gpt"),
        ({"kind": "trade_off", "y_range": [3, 1]}, "low to high"),
        ({"kind": "trade_off", "claims": [{"value": 1, "label": "x", "axis": "z"}]}, "axis"),
        ({"kind": "trade_off", "over": {"tokens": []}}, "no values"),
        ({"kind": "read_out"}, "at: Field required"),
        ({"kind": "speed", "device": "phone"}, "phone"),
        ({"kind": "speed", "source": "elsewhere"}, "Nothing was measured as 'elsewhere'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_sentence(panel: dict[str, object], sentence: str, stored: Stored) -> None:
    with pytest.raises(UserError, match=sentence):
        resolved(stored, panel)


def test_wrong_settings_and_tables_are_sentences(stored: Stored) -> None:
    with pytest.raises(UserError, match="did you mean 'font_size'"):
        resolved(stored, {"kind": "trade_off"}, settings={"fontsize": 9})
    with pytest.raises(UserError, match="at least one density"):
        resolved(stored, {"kind": "trade_off"}, table={"at": []})


def call(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["figure", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr.strip()


def test_the_command_writes_every_file_and_a_figure_json_gives_the_same_again(tmp_path: Path) -> None:
    home = ["--home", tmp_path / "home"]
    recipe = tmp_path / "spec.yaml"
    recipe.write_text("title: Mine\npanels:\n  - {kind: trade_off, methods: [dip]}\n")
    status, printed, _ = call(recipe, "-o", tmp_path / "out", *home, "--json")
    assert status == 0
    said = json.loads(printed)
    assert set(said) == {"figure", "title", "folder", "files"}
    assert all((tmp_path / "out" / name).is_file() for name in said["files"])
    again = ["--home", tmp_path / "other"]
    assert call(tmp_path / "out" / "figure.json", "-o", tmp_path / "again", *again)[0] == 0
    for name in said["files"]:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.yaml", "title: [", "no YAML"),
        ("a.yaml", "just words", "no figure"),
        ("a.yaml", "title: x", "panels"),
        ("a.json", '{"format": "sparsity-lens-figure", "version": 1}', "title"),
        ("a.json", "{", "no JSON"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    (tmp_path / name).write_text(content)
    status, _, said = call(tmp_path / name, "-o", tmp_path / "out", "--home", tmp_path / "home")
    assert status == 2
    assert sentence in said
    assert "\n" not in said
    assert call(tmp_path / "absent.yaml", "-o", tmp_path / "out", "--home", tmp_path / "home")[0] == 2


def test_a_saved_figure_is_reopened_by_its_id(home: Home) -> None:
    figure = every_kind(palette="grey")
    id = saved.save(home, figure)
    assert saved.load(home, id) == figure
    assert saved.save(home, figure) == id
    other = saved.save(home, PaperFigure.of(curves_spec()))
    (home.figures / "0123456789abcdef.json").write_text("{")
    assert {each.id for each in saved.saved(home)} == {id, other}
    assert saved.saved(home)[0].panels in (1, 5)
    saved.remove(home, id)
    with pytest.raises(UserError, match="No figure is saved"):
        saved.load(home, id)
    with pytest.raises(UserError, match="no JSON"):
        saved.load(home, "0123456789abcdef")


@pytest.mark.parametrize("id", ["../../etc/passwd", "", "0" * 15, "g" * 16])
def test_an_id_that_is_none_opens_nothing(home: Home, id: str) -> None:
    with pytest.raises(UserError, match="No figure is saved"):
        saved.load(home, id)


def test_a_full_disk_is_a_sentence_and_leaves_nothing_behind(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="disk is full"):
        saved.save(home, every_kind())
    assert not list(home.figures.iterdir())
