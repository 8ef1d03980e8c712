from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pytest

from backend.figures.interpolation import WINDOW_METRICS
from backend.home import Home
from backend.results import Store, queries
from tests.figures.figures_samples import MODEL, write_results


@dataclass(frozen=True)
class Sample:
    """Points of the made-up evaluation and the windows of their cells."""

    points: pd.DataFrame
    windows: dict[str, pd.DataFrame]


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    home = write_results(Home.resolve(tmp_path_factory.mktemp("figures")))
    with Store.in_memory(home) as store:
        points = queries.points(store, model=MODEL)
        windows = {m: queries.window_values(store, list(points["cell_id"]), m) for m in WINDOW_METRICS}
    return Sample(points, windows)
