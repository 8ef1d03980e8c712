from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import home as places
from backend.home import Home
from backend.results import Store


@pytest.fixture(autouse=True)
def no_seed(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty seed, so that tests do not depend on what is committed."""
    seed = tmp_path_factory.mktemp("seed")
    monkeypatch.setattr(places, "SEED", seed)
    return seed


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with Store.open(home) as opened:
        yield opened
