"""From a name, a folder or a hub id to a checked folder; what is fetched, remembered and refused."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.errors import UserError
from backend.home import Home
from backend.models import sources
from backend.models.catalog import CatalogEntry
from backend.models.conversion import Manifest
from backend.models.sources import resolve
from tests.models.hub_server import COMMIT, serve_hub

WEIGHTS = b"weights" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
FOLDER = {"config.json": b"{}", "model.safetensors": WEIGHTS, "tokenizer.json": b"{ }"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.resolve(tmp_path / "home")


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


# --- the catalog


def test_a_catalog_name_is_fetched_and_converted_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def fetch(source: object, folder: Path, progress: object) -> Path:
        done.append("fetch")
        (folder / "tiny.gguf").write_bytes(b"GGUF")
        return folder / "tiny.gguf"

    def convert(gguf: Path, entry: CatalogEntry, folder: Path, progress: object) -> Manifest:
        done.append("convert")
        fill(folder, FOLDER)
        manifest = Manifest(entry.name, 1, "", entry.source.gguf_sha256, SHA256, len(WEIGHTS), "float32")
        (folder / "manifest.json").write_text(json.dumps(vars(manifest)))
        return manifest

    monkeypatch.setattr(sources, "fetch_gguf", fetch)
    monkeypatch.setattr(sources, "convert", convert)
    left_behind = home.models / "smollm2-135m" / "convert-killed"
    left_behind.mkdir(parents=True)

    first, second = resolve("smollm2-135m", home), resolve("smollm2-135m", home)
    assert first == second
    assert (first.name, first.sha256, first.title) == ("smollm2-135m", SHA256, "SmolLM2-135M-Instruct")
    assert done == ["fetch", "convert"]
    assert not left_behind.exists()
    assert not (home.models / "smollm2-135m" / "tiny.gguf").exists()


@pytest.mark.parametrize("name", ["smolm2-135m", "SmolLM2", "smollm2-135"])
def test_a_mistyped_name_is_told_without_asking_the_hub(name: str, home: Home) -> None:
    with pytest.raises(UserError, match="did you mean 'smollm2-"):
        resolve(name, home)


# --- folders


def test_a_folder_is_hashed_once_until_it_changes(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(tmp_path / "mine", FOLDER)
    found = resolve(str(folder), home)
    assert (found.path, found.name, found.sha256) == (folder, "mine", SHA256)

    with monkeypatch.context() as patched:
        patched.setattr(sources, "file_sha256", None)  # hashing again would be a TypeError
        assert resolve(str(folder), home) == found

    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    assert resolve(str(folder), home).sha256 == hashlib.sha256(WEIGHTS[::-1]).hexdigest()


def test_a_broken_memory_of_hashes_is_only_slower(home: Home, tmp_path: Path) -> None:
    (home.models / "hashes.json").write_text('{"half')
    assert resolve(str(fill(tmp_path / "mine", FOLDER)), home).sha256 == SHA256


def test_shards_are_found_through_their_index(home: Home, tmp_path: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = {"weight_map": {"a": names[0], "b": names[1], "c": names[0]}}
    files = {
        "config.json": b"{}",
        names[0]: b"one",
        "model.safetensors.index.json": json.dumps(index).encode(),
    }
    folder = fill(tmp_path / "sharded", files)
    with pytest.raises(UserError, match="lacks 1 of its 2 weight files"):
        resolve(str(folder), home)
    fill(folder, {names[1]: b"two"})
    both = "\n".join(hashlib.sha256(part).hexdigest() for part in (b"one", b"two"))
    assert resolve(str(folder), home).sha256 == hashlib.sha256(both.encode()).hexdigest()


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"pickle"}, "only pickled weights"),
        ({"config.json": b"{}", "model.Q4_1.gguf": b"GGUF"}, "GGUF weights only"),
        ({"config.json": b"{}"}, "no safetensors weights"),
        ({"model.safetensors": WEIGHTS}, "no config.json"),
    ],
)
def test_a_folder_without_usable_weights_is_refused(
    files: dict[str, bytes], sentence: str, home: Home, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        resolve(str(fill(tmp_path / "bad", files)), home)


@pytest.mark.parametrize("given", ["/no/such/folder", "./nothing", "a/b/c", ""])
def test_what_is_neither_folder_nor_id_is_refused(given: str, home: Home) -> None:
    with pytest.raises(UserError, match=r"There is no folder|is a file|no config\.json"):
        resolve(given, home)


# --- the hub, with the real client


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with three repositories; gives the files that were fetched from it."""
    from huggingface_hub import constants

    whole = FOLDER | {
        "model.fp16.safetensors": b"variant",
        "pytorch_model.bin": b"pickle",
        "onnx/config.json": b"{}",
        "README.md": b"#",
    }
    repositories = {
        "org/whole": whole,
        "org/gated": FOLDER,
        "org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    }
    with serve_hub(repositories, gated={"org/gated"}) as (address, fetched):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield fetched


def _unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_a_hub_model_comes_as_safetensors_and_has_the_identity_of_its_weights(
    hub: list[str], home: Home, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[str, float | None]] = []
    found = resolve("org/whole", home, lambda message, share: told.append((message, share)))
    assert sorted(hub) == sorted(FOLDER)
    assert found.path.name == COMMIT
    assert (found.name, found.sha256) == ("org/whole", SHA256)
    assert resolve(str(fill(tmp_path / "copy", FOLDER)), home).sha256 == found.sha256
    assert max(share or 0.0 for message, share in told if message.startswith("Downloading")) == 1.0
    assert capfd.readouterr().err == ""


def test_a_hub_model_is_used_from_the_cache_when_the_hub_is_away(
    hub: list[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = resolve("org/whole", home)
    _unreachable(monkeypatch)
    assert resolve("org/whole", home) == online


def test_an_incomplete_download_is_not_used_when_the_hub_is_away(
    hub: list[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (resolve("org/whole", home).path / "model.safetensors").unlink()
    _unreachable(monkeypatch)
    with pytest.raises(UserError, match="cannot be reached"):
        resolve("org/whole", home)


def test_without_hub_and_cache_the_sentence_names_what_still_works(
    hub: list[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    _unreachable(monkeypatch)
    with pytest.raises(UserError, match=r"hub cannot be reached .* use smollm2-135m.* or name a local model"):
        resolve("org/whole", home)


def test_offline_mode_is_treated_as_an_unreachable_hub(
    hub: list[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    online = resolve("org/whole", home)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve("org/whole", home) == online


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("org/gated", r"is gated: accept its licence at https://huggingface.co/org/gated.* HF_TOKEN"),
        ("org/absent", r"There is no model 'org/absent' on the hub, or it is private"),
        ("org/smollm2-135m", r"There is no model .* did you mean 'smollm2-135m'\?"),
        ("org/whole@v9", r"org/whole has no revision 'v9'"),
        ("org/pickled", r"org/pickled on the hub has only pickled weights"),
    ],
)
def test_what_the_hub_refuses_becomes_a_sentence(
    model: str, sentence: str, hub: list[str], home: Home
) -> None:
    with pytest.raises(UserError, match=sentence):
        resolve(model, home)
    assert [name for name in hub if not name.endswith(".json")] == []


def test_a_disk_that_fills_up_is_a_sentence(
    hub: list[str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(UserError, match=r"is full .* HF_HOME"):
        resolve("org/whole", home)


def test_a_revision_is_part_of_the_name(hub: list[str], home: Home) -> None:
    found = resolve(f"org/whole@{COMMIT}", home)
    assert (found.name, found.path.name, found.sha256) == (f"org/whole@{COMMIT}", COMMIT, SHA256)
