from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from backend.home import REPOSITORY, Home
from backend.results import Store
from tests.pages.conftest import Open

PAGES = {
    "home": "Sparsity Lens",
    "trade_offs": "Trade-offs",
    "sparse_activation": "Sparse activation",
    "dip_memory": "DIP and memory",
    "mixture_of_experts": "Mixture of experts",
    "generations": "Generations",
    "runs": "Runs",
    "paper": "Paper",
    "methods": "Methods",
}
FILES = sorted(path.stem for path in (REPOSITORY / "pages").glob("*.py") if path.stem != "__init__")


def test_every_page_is_tested() -> None:
    assert sorted(PAGES) == FILES


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_with_title_purpose_and_explanation(
    name: str, results_home: Home, open_page: Open
) -> None:
    page = open_page(name)
    assert [title.value for title in page.title] == [PAGES[name]]
    assert page.markdown[0].value.endswith(".")
    assert "How is this computed?" in [expander.label for expander in page.expander]
    assert not page.error
    assert not page.warning


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens_without_results(name: str, empty_home: Home, open_page: Open) -> None:
    page = open_page(name)
    assert [title.value for title in page.title] == [PAGES[name]]
    assert not page.error
    if name in ("home", "trade_offs", "paper"):
        assert "No results are stored yet" in page.info[0].value


@pytest.mark.parametrize("name", ["home", "trade_offs", "runs"])
def test_a_store_that_is_open_elsewhere_is_a_sentence(name: str, empty_home: Home, open_page: Open) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(empty_home.root)], cwd=REPOSITORY, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        page = open_page(name)
        assert f"open in process {holder.pid}" in page.error[0].value
        assert not page.dataframe
    finally:
        holder.communicate("", timeout=20)
    page.run()
    assert not page.error, "the page works again when the other app has ended"


@pytest.mark.parametrize("module", ["app", *(f"pages.{name}" for name in FILES)])
def test_importing_a_page_never_imports_torch(module: str, tmp_path: object) -> None:
    code = f"import sys, importlib; importlib.import_module({module!r}); print('torch' in sys.modules)"
    environment = os.environ | {"SPARSITY_LENS_HOME": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines()[-1] == "False", found.stderr


def test_only_the_app_and_its_pages_import_streamlit() -> None:
    code = (
        "import sys, pkgutil, importlib, json, backend\n"
        "names = [m.name for m in pkgutil.walk_packages(backend.__path__, 'backend.')]\n"
        "free = [n for n in names if n.split('.')[1] in ('figures', 'results', 'settings')]\n"
        "[importlib.import_module(n) for n in free]\n"
        "print(json.dumps([len(free), 'streamlit' in sys.modules, 'torch' in sys.modules]))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    count, streamlit, torch = json.loads(found.stdout)
    assert count > 10
    assert not streamlit
    assert not torch
    for path in (REPOSITORY / "backend").rglob("*.py"):
        assert "import streamlit" not in path.read_text(), path


def test_the_store_is_closed_with_the_cache(results_home: Home, open_page: Open) -> None:
    import streamlit as st

    open_page("home")
    st.cache_resource.clear()
    with Store.open(results_home) as store:
        assert store.version >= 0


_HOLD = """
import sys
from pathlib import Path
import backend.home
backend.home.SEED = Path("/nowhere")
from backend.results import Store
with Store.open(backend.home.Home.resolve(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""
