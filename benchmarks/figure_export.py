"""How long a figure with ten series takes to export: each format, the tables, the whole bundle.

python -m benchmarks.figure_export
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

from backend.figures.palette import COLOURS, DASHES, MARKERS, Style
from backend.figures.paper import PaperFigure, to_page
from backend.figures.paper.bundle import bundle
from backend.figures.paper.files import drawn, interactive, table_files
from backend.figures.pgfplots import to_pgfplots
from backend.figures.spec import Axis, FigureSpec, Series

SERIES, POINTS, REPEATS = 10, 30, 5


def figure() -> PaperFigure:
    """Return a figure of ten series of thirty points with error bars."""
    xs = tuple((i + 1) / POINTS for i in range(POINTS))
    series = tuple(
        Series(
            name=f"series-{n}",
            label=f"Series {n}",
            style=Style(colour=COLOURS[n % 7], marker=MARKERS[n % 8], dash=DASHES[n % 6]),
            x=xs,
            y=tuple(20 + 10 * math.exp(-3 * x) * (1 + n / 10) for x in xs),
            y_err=(0.3,) * POINTS,
        )
        for n in range(SERIES)
    )
    spec = FigureSpec(title="Ten series", x=Axis(label="Density"), y=Axis(label="Perplexity"), series=series)
    return PaperFigure.of(spec)


def measured(job: Callable[[], object]) -> tuple[float, float]:
    """Return the first time and the median of the later ones, seconds."""
    times = []
    for _ in range(1 + REPEATS):
        begin = time.perf_counter()
        job()
        times.append(time.perf_counter() - begin)
    return times[0], statistics.median(times[1:])


def main() -> None:
    made = figure()
    jobs: dict[str, Callable[[], object]] = {
        "PDF": lambda: drawn(made, "pdf"),
        "SVG": lambda: drawn(made, "svg"),
        "PNG": lambda: drawn(made, "png"),
        "PGFPlots": lambda: to_pgfplots(to_page(made), made.stem),
        "tables": lambda: table_files(made),
        "HTML": lambda: interactive(made),
        "bundle (all but HTML)": lambda: bundle(made),
    }
    print(f"{SERIES} series of {POINTS} points with error bars; seconds")
    for name, job in jobs.items():
        first, later = measured(job)
        print(f"{name:<24} first {first:5.2f}   then {later:5.2f}")


if __name__ == "__main__":
    main()
