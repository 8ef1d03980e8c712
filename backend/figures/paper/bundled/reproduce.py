"""Draw the figure again from this folder alone: page.json, data.parquet, fonts/ and drawing/.

    pip install -r requirements.txt
    python reproduce.py

The files go to redrawn/. With the pinned packages they are the same, byte for byte, as those beside this
script; the last line says so. ``--data data.csv`` draws from the CSV instead, which you may have changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pandas as pd
from matplotlib import font_manager

HERE = Path(__file__).resolve().parent


def read_data(path: Path) -> pd.DataFrame:
    """Return the data of all panels, one row a point or a cell of a heat map."""
    if path.suffix == ".csv":
        return pd.read_csv(path, dtype={"row": str, "column": str})
    return pd.read_parquet(path)


def fill(page: SimpleNamespace, data: pd.DataFrame) -> None:
    """Put the numbers back into the page."""
    for place, panel in enumerate(page.panels):
        own = data[data["panel"] == place]
        if panel.spec.heat is not None:
            heat = panel.spec.heat
            values, width = numbers(own["value"]), len(heat.columns)
            heat.values = [values[i * width : (i + 1) * width] for i in range(len(heat.rows))]
        if panel.spec.strip is not None:
            panel.spec.strip.values = numbers(own["value"])
        for number, series in enumerate(panel.spec.series):
            rows = own[own["number"] == number]
            series.x, series.y = rows["x"].tolist(), rows["y"].tolist()
            series.x_err, series.y_err = numbers(rows["x_stderr"]), numbers(rows["y_stderr"])
            series.faded = rows["dominated"].astype(bool).tolist()
            series.hollow = rows["interpolated"].astype(bool).tolist()


def numbers(column: pd.Series) -> list[float | None]:
    """Return a column's values, None where there is none."""
    return [None if pd.isna(value) else float(value) for value in column]


def use_bundled_font() -> None:
    """Let Matplotlib find the serif font in this folder, not the one it ships."""
    from drawing.text import SERIF, SERIF_FILES

    manager = font_manager.fontManager
    manager.ttflist = [entry for entry in manager.ttflist if entry.name != SERIF]
    for name in SERIF_FILES:
        manager.addfont(str(HERE / "fonts" / name))


def main() -> int:
    """Draw every format and compare it with the file beside this script."""
    parser = argparse.ArgumentParser(description="Draw the figure again.")
    parser.add_argument("--data", type=Path, default=HERE / "data.parquet")
    parser.add_argument("--out", type=Path, default=HERE / "redrawn")
    asked = parser.parse_args()
    use_bundled_font()
    from drawing.page import to_bytes

    page: Any = json.loads(
        (HERE / "page.json").read_text(encoding="utf-8"), object_hook=lambda said: SimpleNamespace(**said)
    )
    fill(page, read_data(asked.data))
    asked.out.mkdir(parents=True, exist_ok=True)
    same = True
    for format in ("pdf", "svg", "png"):
        name = f"{page.name}.{format}"
        drawn = to_bytes(page, format)
        (asked.out / name).write_bytes(drawn)
        same = same and drawn == (HERE / name).read_bytes()
    if same:
        print("Redrawn: the same bytes.")
    else:
        print(
            f"Redrawn, with other bytes (matplotlib {matplotlib.__version__}, made with {page.matplotlib})."
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
