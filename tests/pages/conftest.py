from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend.home import REPOSITORY, Home
from tests.figures.figures_samples import write_latencies, write_results

Open = Callable[..., AppTest]


@pytest.fixture
def results_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home with made-up results of every method, which the app opens."""
    yield from _used(write_results(Home.resolve(tmp_path / "home")), tmp_path, monkeypatch)


@pytest.fixture
def latency_home(results_home: Home) -> Home:
    """The same with int8's results and latencies of DIP and gate pruning."""
    return write_latencies(results_home)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home with nothing in it, which the app opens."""
    yield from _used(Home.resolve(tmp_path / "home"), tmp_path, monkeypatch)


@pytest.fixture
def open_page() -> Open:
    """Open a page by its file's name, with an address of keys and values; it must raise nothing."""

    def opened(name: str, /, **address: str | list[str]) -> AppTest:
        app = AppTest.from_file(str(REPOSITORY / "app.py"), default_timeout=20).run()
        if name != "home":
            app.switch_page(f"pages/{name}.py")
        for key, value in address.items():
            app.query_params[key] = value
        app.run()
        assert not app.exception
        return app

    return opened


def _used(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("SPARSITY_LENS_HOME", str(home.root))
    monkeypatch.setattr("backend.home.SEED", tmp_path / "no-seed")
    yield home
    st.cache_resource.clear()  # closes the store
