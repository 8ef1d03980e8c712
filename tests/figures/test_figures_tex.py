"""PGFPlots and LaTeX tables: the data they hold, and that TeX takes them (where TeX is installed)."""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.figures.paper import PaperFigure, to_page
from backend.figures.pgfplots import to_pgfplots
from backend.figures.pgfplots.data import Window, keys_of, line_of
from backend.figures.tables import (
    Cell,
    Rank,
    Row,
    Table,
    TableColumn,
    latex_escape,
    table_of,
    to_csv,
    to_latex,
    to_markdown,
)
from tests.figures.paper_samples import EVIL, bars_spec, curves_spec, every_kind, heat_spec

needs_tex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def compiled(folder: Path, name: str) -> pypdf.PageObject:
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-3000:]
    return pypdf.PdfReader(folder / f"{name}.pdf").pages[0]


@pytest.mark.tex
@needs_tex
@pytest.mark.parametrize("settings", [{}, {"venue": "icml", "span": "column", "title": True}])
def test_the_pgfplots_file_compiles_to_the_same_size(tmp_path: Path, settings: dict[str, object]) -> None:
    page = to_page(every_kind(**settings))
    for name, content in to_pgfplots(page, "figure").items():
        (tmp_path / name).write_bytes(content)
    made = compiled(tmp_path, "figure-standalone")
    assert float(made.mediabox.width) / 72 == pytest.approx(page.width_in, abs=0.01)
    assert float(made.mediabox.height) / 72 == pytest.approx(page.height_in, abs=0.01)
    assert "Method 0" in made.extract_text()


@pytest.mark.tex
@needs_tex
@pytest.mark.parametrize("siunitx", [False, True])
def test_the_latex_table_compiles_with_awkward_names(tmp_path: Path, siunitx: bool) -> None:
    packages = r"\usepackage{booktabs}\usepackage{siunitx}" if siunitx else r"\usepackage{booktabs}"
    bodies = [to_latex(table, siunitx=siunitx).decode() for table in (sample(), table_of(curves_spec()))]
    lines = [r"\documentclass{article}", packages, r"\begin{document}", *bodies, r"\end{document}"]
    (tmp_path / "table.tex").write_text("\n\n".join(lines), encoding="utf-8")
    shown = compiled(tmp_path, "table").extract_text()
    assert "50% of A" in shown
    assert "31.30" in shown


def sample() -> Table:
    columns = (
        TableColumn(label=f"Perplexity {EVIL}", unit="%", better="lower", digits=2),
        TableColumn(label="Speed", unit="tokens/s", better="higher", digits=1),
    )
    rows = (
        Row(label="Dense", cells=(Cell(value=22.75), Cell(value=99.0)), ranked=False),
        Row(label=EVIL, cells=(Cell(value=31.3, stderr=0.55), Cell(value=10.0))),
        Row(label="B", cells=(Cell(value=110.72, stderr=3.11), Cell(value=12.04))),
        Row(label="C", cells=(Cell(), Cell(value=12.0))),
        Row(label="D", cells=(Cell(value=-31.3), Cell(value=-1.0))),
    )
    return Table(title="T", head="Method_", columns=columns, rows=rows, note="± over windows")


def test_best_and_second_are_found_among_the_ranked() -> None:
    best, second, other = Rank.BEST, Rank.SECOND, Rank.OTHER
    assert sample().ranks() == [
        [other, other],
        [second, second],
        [other, best],
        [other, best],  # 12.04 and 12.0 are both written 12.0
        [best, other],
    ]


def test_latex_marks_them_and_escapes_everything() -> None:
    text = to_latex(sample()).decode()
    assert r"\underline{31.30} $\pm$ 0.55" in text
    assert r"\textbf{$-$31.30}" in text
    assert r"Method\_" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert "±" not in body
    assert "(\\%) $\\downarrow$" in body
    assert r"S[table-format=-3.2(3)]" in to_latex(sample(), siunitx=True).decode()
    assert r"\bfseries -31.30" in to_latex(sample(), siunitx=True).decode()


@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_no_special_character_survives_the_escape(text: str) -> None:
    escaped = latex_escape(text)
    for macro in ("\\textbackslash{}", "\\textasciitilde{}", "\\textasciicircum{}", "\\textless{}",
                  "\\textgreater{}", "\\textbar{}"):  # fmt: skip
        escaped = escaped.replace(macro, "")
    for special in "&%$#_{}":
        escaped = escaped.replace(f"\\{special}", "")
    assert not set(escaped) & set("\\&%$#_{}~^<>|")


def test_markdown_and_csv() -> None:
    lines = to_markdown(sample()).decode().splitlines()
    assert lines[0].startswith("| Method\\_ | Perplexity 50% of A\\_b")
    assert "<u>31.30</u> ± 0.55" in lines[3]
    assert "**−31.30**" in lines[6]
    frame = pd.read_csv(io.BytesIO(to_csv(sample())))
    assert len(frame.columns) == 4  # speed has no errors
    assert frame.iloc[1, 1] == 31.3
    assert np.isnan(frame.iloc[3, 1])


def test_the_tables_of_each_kind_of_figure() -> None:
    heat = table_of(heat_spec())
    assert (len(heat.rows), len(heat.columns)) == (3, 8)
    bars = table_of(bars_spec())
    assert [row.label for row in bars.rows] == ["Dense", "DIP"]
    assert [cell.value for cell in bars.rows[0].cells] == [10.0, 30.0]
    curves = table_of(curves_spec())
    assert [row.label for row in curves.rows] == ["Method 0", EVIL, "Method 2"]
    assert len(curves.columns) == 6
    assert curves.rows[0].cells[2].stderr == 0.3


def test_the_csv_of_pgfplots_holds_the_figures_numbers() -> None:
    figure = PaperFigure.of(curves_spec())
    (series,) = [s for s in curves_spec().series if s.name == "gate_pruning"]
    frame = pd.read_csv(io.BytesIO(to_pgfplots(to_page(figure), "f")["f.csv"]))
    assert tuple(frame["gate-pruning_x"].dropna()) == series.x
    assert tuple(frame["gate-pruning_y"].dropna()) == series.y
    assert frame["gate-pruning_seen_y"].isna()[0]
    assert frame["gate-pruning_line_y"].max() < 100, "TeX could not place 100,000"
    assert frame["gate-pruning_yerr"].tolist()[:3] == [0.3, 0.0, 0.3]


def test_keys_are_columns_names_and_each_is_there_once() -> None:
    spec = curves_spec(count=2)
    same = spec.model_copy(update={"series": (*spec.series, *spec.series)})
    names = keys_of(same)
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-1e6, 1e6)), min_size=2, max_size=12),
)
def test_a_cut_line_lies_on_the_line_and_near_the_panel(points: list[tuple[float, float]]) -> None:
    series = (
        curves_spec()
        .series[1]
        .model_copy(
            update={"x": tuple(x for x, _ in points), "y": tuple(y for _, y in points), "kind": "line"}
        )
    )
    window = Window((0.0, 1.0), (0.0, 10.0), False, False)
    for x, y in line_of(series, window):
        if np.isnan(x):
            continue
        assert -0.5 - 1e-9 <= x <= 1.5 + 1e-9
        assert -5 - 1e-6 <= y <= 15 + 1e-6
        assert min(distance((x, y), a, b) for a, b in itertools.pairwise(points)) < 1e-3


def distance(point: tuple[float, float], one: tuple[float, float], other: tuple[float, float]) -> float:
    """Distance of a point from a segment, in the panel's sizes: the slow, obvious way."""
    p, a, b = (np.array(each) / (1.0, 10.0) for each in (point, one, other))
    length = float((b - a) @ (b - a))
    share = 0.0 if length == 0 else float(np.clip((p - a) @ (b - a) / length, 0, 1))
    return float(np.linalg.norm(p - a - share * (b - a)))
