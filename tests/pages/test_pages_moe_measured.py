"""From a sweep of routings on a tiny random model to the page: what is stored is what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

from backend.experiments.laboratory import Laboratory
from backend.experiments.runner import run_sweep
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import Sweep
from backend.home import Home
from backend.residency import RoutingRecord
from tests.models_tiny import tiny_model
from tests.moe_tiny import EXPERTS, LAYERS, TOP_K, tiny_moe
from tests.pages.conftest import Open


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random mixture of experts, with a tokenizer, as a user's local model would be."""
    path = tmp_path_factory.mktemp("models") / "tiny-moe"
    tiny_model("llama", path)
    for weights in path.glob("*.safetensors"):
        weights.unlink()
    tiny_moe("qwen2_moe").save_pretrained(path)
    return path


@pytest.fixture
def measured(
    empty_home: Home, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Home]:
    monkeypatch.setattr("backend.experiments.routing_records.SEED", tmp_path / "no-seed")
    monkeypatch.setattr("pages._shared.moe_data.SEED", tmp_path / "no-seed")
    sweep = Sweep.parse(
        {
            "name": "tiny-routings", "model": str(folder),
            "evaluation": {"kind": "routing", "text": "prose", "tokens": 96, "window": 32},
            "policies": [
                {"method": "original"},
                {"method": "expert_pruning", "experts": 2},
                {"method": "cache_prior", "lambda_": [0.2, 0.8], "cache_share": [0.5, 0.75]},
            ],
        },
        "sweep",
    )  # fmt: skip
    run_sweep(RunFolder.create(empty_home, sweep, "sweep"), Laboratory(empty_home, None, "cpu", 1), {})
    yield empty_home
    st.cache_resource.clear()


def test_a_sweep_of_routings_fills_the_page(measured: Home, open_page: Open) -> None:
    page = open_page("mixture_of_experts", slots="6")
    assert not page.error
    assert not page.warning
    assert "tiny-moe" in page.selectbox(key="routing").value
    shown = {metric.label: metric.value for metric in page.metric}
    records = [RoutingRecord.load(path) for path in (measured.root / "routing").glob("*.parquet")]
    assert len(records) == 6
    assert {(r.experts, r.experts_per_token, len(r.layers)) for r in records} == {
        (EXPERTS, TOP_K, LAYERS), (EXPERTS, 2, LAYERS)
    }  # fmt: skip
    assert all(r.dense_bytes > 0 and r.expert_bytes > 0 for r in records)
    assert "Cache-Prior, λ 0.2" in " ".join(m.value for m in page.markdown)
    rates = [f"{r.curve('lru').miss_rate(6):.1%}" for r in records]
    assert shown["Miss rate"] in rates
    assert shown["Miss rate, re-routed"] in rates  # its own record, at the size that it ran with, agrees
    assert float(shown["Experts per token"]) == TOP_K
