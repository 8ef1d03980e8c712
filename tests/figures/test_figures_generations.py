"""Token strips of stored texts: figures, files and recipes."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from backend.errors import UserError
from backend.figures import strip_files
from backend.figures.generations import SCORES, colours_of, strip_spec, visible
from backend.figures.recipes import FigureRecipe, Stored
from backend.home import Home
from backend.results import Store, queries
from backend.results.generations import Generation, generation
from backend.results.queries import StoredRun
from tests.pages.generation_samples import EVIL, RUN, WORDS, write_generation

KL = SCORES[0]


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    write_generation(home)
    with Store.open(home) as opened:
        opened.ingest()
        yield opened


@pytest.fixture
def shown(store: Store) -> Generation:
    found = generation(store, RUN)
    assert found is not None
    return found


@pytest.fixture
def run(store: Store) -> StoredRun:
    found = queries.run(store, RUN)
    assert found is not None
    return replace(found, provenance={"commit": "abc", "packages": {"torch": "2"}, "process": {"pid": 1}})


class Words(HTMLParser):
    """Collects elements and what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.seen.append(data)


def test_the_static_page_holds_every_text_escaped(shown: Generation, run: StoredRun) -> None:
    content = strip_files.to_html(shown, "free", KL, run).decode()
    page = Words()
    page.feed(content)
    assert "img" not in page.tags
    assert "b" not in page.tags
    assert "".join(WORDS) in "".join(page.seen)
    assert visible(EVIL) in "".join(page.seen)
    assert "tokens/s measured (gathered)" in content
    assert RUN in content
    assert '"commit": "abc"' in html.unescape(content)
    assert re.search(r'<span style="background:rgb\(\d+,\d+,\d+\);color:#[0F]{6}" title="0.1">', content)


def test_json_holds_everything_and_is_finite(shown: Generation, run: StoredRun) -> None:
    said = json.loads(strip_files.to_json(shown, run))
    assert said["prompt"] == EVIL
    assert (said["status"], said["settings"]["temperature"]) == ("done", 0.7)
    assert said["made_with"] == {"commit": "abc", "packages": {"torch": "2"}}
    side = said["sides"][1]
    assert side["label"] == "DIP · density 0.5"
    assert side["first_divergence"] == 3
    assert [token["text"] for token in side["tokens"]["forced"]] == list(WORDS)
    assert side["tokens"]["free"][2]["layers"] == {"mlp_density": [0.25, 0.75]}


def test_latex_is_escaped_and_each_token_has_its_colour(shown: Generation) -> None:
    tex = strip_files.to_latex(shown, "free", KL).decode()
    assert r"~\textless{}b\textgreater{}is" in tex
    assert tex.count(r"\tok{") == 2 * 4  # each token of two sides that has letters
    assert r"\paragraph{DIP" in tex
    assert tex.count("KL(dense") == 2 * 1  # the heading of each side says it once
    assert "tokens/s measured (gathered)" in tex


@pytest.mark.tex
def test_latex_compiles(shown: Generation, tmp_path: object) -> None:
    import shutil
    import subprocess
    from pathlib import Path

    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex")
    folder = Path(str(tmp_path))
    body = strip_files.to_latex(shown, "free", KL).decode()
    head = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{xcolor}\\usepackage{textcomp}\n"
    (folder / "a.tex").write_text(f"{head}\\begin{{document}}\n{body}\\end{{document}}\n")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"], cwd=folder, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


def test_png_is_drawn(shown: Generation) -> None:
    assert strip_files.to_png(shown, "free", KL).startswith(b"\x89PNG")


def test_colours_are_scores_then_the_sides_own_columns(shown: Generation) -> None:
    assert [colour.name for colour in colours_of(shown)] == [
        "kl",
        "delta_logprob",
        "dense_rank",
        "mlp_density",
    ]
    values = {c.name: [c.of(t) for t in shown.sides[1].tokens["free"]] for c in colours_of(shown)}
    assert values["kl"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert values["delta_logprob"] == pytest.approx([0, -0.1, -0.2, -0.3, -0.4, -0.5])
    assert values["dense_rank"][:2] == pytest.approx([0, 0.30103])
    assert values["mlp_density"] == [None, *[0.5] * 5]


def test_the_dense_side_has_one_text_for_both_forms(shown: Generation) -> None:
    dense = shown.sides[0]
    assert strip_spec(shown, dense, "free", KL).strip == strip_spec(shown, dense, "forced", KL).strip


@pytest.mark.parametrize("text", ["\x00", "\x7f", "\x85", "\u202e", "\u200b", "\u2066", "\x1b[2J"])
def test_what_steers_a_screen_is_shown_as_a_sign(text: str) -> None:
    shown = visible(f"a{text}b")
    assert text not in shown
    assert shown[0] + shown[-1] == "ab"
    assert all(letter.isprintable() for letter in shown)
    assert html.escape(shown) == shown


def test_a_recipe_draws_a_strip_and_says_what_it_lacks(store: Store) -> None:
    stored = Stored(store, store.home)

    def drawn(**said: object) -> object:
        return FigureRecipe.parse(
            {"title": "t", "panels": ({"kind": "token_strip", "run": RUN, **said},)}, "recipe"
        ).resolve(stored)

    figure = drawn(side=2, colour="delta_logprob")
    assert figure.panels[0].spec.strip.scale.kind == "diverging"  # type: ignore[attr-defined]
    for said, sentence in (
        ({"run": "nowhere"}, "no prompt 1 in a generation 'nowhere'"),
        ({"prompt": 3}, "no prompt 3"),
        ({"side": 3}, "has no side 3; it has 0"),
        ({"colour": "kll"}, "did you mean 'kl'"),
        ({"side": 2, "form": "free"}, "has no free text"),
    ):
        with pytest.raises(UserError, match=sentence):
            drawn(**said)
