from __future__ import annotations

import os
from pathlib import Path

import pytest

from backend.home import REPOSITORY, Home
from backend.models.anatomy import find_anatomy
from backend.sparsity.engine import MaskedEngine
from tests.models_tiny import tiny_model

BESIDE = REPOSITORY.parent / "shared" / "data"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The local data root: named, or beside the checkout; tests on the real sets are skipped without it."""
    named = os.environ.get("SPARSITY_LENS_DATA")
    root = Path(named) if named else BESIDE
    if not root.is_dir():
        pytest.skip("no local data root")
    return root


@pytest.fixture(scope="session")
def real_home() -> Home:
    """The home whose models folder holds the default model, fetched once."""
    return Home.resolve(os.environ.get("SPARSITY_LENS_HOME"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home")


@pytest.fixture(scope="session")
def llama() -> MaskedEngine:
    model, _ = tiny_model("llama")
    return MaskedEngine(model, find_anatomy(model))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama and its tokenizer, as a user's local model would be."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny_model("llama", folder)
    return folder


@pytest.fixture
def stores_in_memory(monkeypatch):
    """Let expert stores be timed where pytest's folders are a tmpfs, as tests look at no seconds."""
    monkeypatch.setattr("backend.decoding.direct_reader._lies_in_memory", lambda path: False)
