"""Reads pieces of a file from the disk itself, past the operating system's page cache.

A store whose file was just written lies in the page cache whole, and a "miss" would be a copy in memory. So:

* ``O_DIRECT`` where the file system takes it (Linux): the disk writes into our buffer;
* ``F_NOCACHE`` (macOS): the kernel is asked to keep nothing of the file;
* else ``posix_fadvise(DONTNEED)`` after each read: what was read is dropped from the cache.

Which one runs is found by trying, once, when the file is opened; it is stored with every measurement. On a
memory file system (tmpfs) there is no disk to read from, so none is claimed. What a disk, its controller or a
virtual machine's host keeps in memory of its own, no program can pass by.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Literal, Self, get_args

from backend.errors import UserError

ALIGNMENT = 4096
"""Offsets, lengths and buffers of direct reads are multiples of this: the block of every usual disk."""
Bypass = Literal["none", "O_DIRECT", "F_NOCACHE", "posix_fadvise"]
BYPASSES: tuple[Bypass, ...] = get_args(Bypass)
"""Ways past the page cache; a stored measurement names one by its place here."""


class DirectReader:
    """An open file for aligned reads.

    Args:
        path: The file.
        direct: Pass the page cache by; False reads through it, for comparison.

    Attributes:
        bypass: How the page cache is passed by; "none" if it is not, or if the file lies in memory.

    Raises:
        UserError: The file cannot be read, or this system has no way past its page cache.
    """

    def __init__(self, path: Path, *, direct: bool = True) -> None:
        self.path = path
        if not hasattr(os, "preadv"):
            raise UserError(
                "An expert store reads with preadv, which this system does not have; use Linux or macOS."
            )
        try:
            self._file, self.bypass = _open(path, direct)
        except OSError as error:
            raise UserError(f"The expert store {path} cannot be read ({error.strerror}).") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def read(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer from the file.

        Args:
            buffer: Where to; page-aligned, its length a multiple of ``ALIGNMENT``.
            offset: Where from, in bytes; a multiple of ``ALIGNMENT``.

        Raises:
            UserError: The file is shorter than that, or cannot be read.
        """
        done = 0
        while done < len(buffer):
            try:
                got = os.preadv(self._file, [buffer[done:]], offset + done)
            except OSError as error:
                raise UserError(f"The expert store {self.path} cannot be read ({error.strerror}).") from error
            if got <= 0:
                raise UserError(
                    f"The expert store {self.path} is cut off; delete it, and it is written again."
                )
            done += got
        if self.bypass == "posix_fadvise":
            os.posix_fadvise(self._file, offset, len(buffer), os.POSIX_FADV_DONTNEED)


def _open(path: Path, direct: bool) -> tuple[int, Bypass]:
    if not direct or _lies_in_memory(path):
        return os.open(path, os.O_RDONLY), "none"
    if hasattr(os, "O_DIRECT"):
        file = -1
        try:
            file = os.open(path, os.O_RDONLY | os.O_DIRECT)
            with mmap.mmap(-1, ALIGNMENT) as page, memoryview(page) as view:
                os.preadv(file, [view], 0)  # some file systems refuse only here
            return file, "O_DIRECT"
        except OSError:
            if file >= 0:
                os.close(file)
    file = os.open(path, os.O_RDONLY)
    if _without_cache(file):
        return file, "F_NOCACHE"
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        return file, "posix_fadvise"
    os.close(file)
    raise UserError(
        "This system offers no way past its page cache (O_DIRECT, F_NOCACHE, posix_fadvise), so loads from "
        "disk cannot be timed; direct=false reads through the cache, and says so."
    )


def _lies_in_memory(path: Path) -> bool:
    """Tell whether a file is on a memory file system: they may take O_DIRECT, and read memory."""
    import psutil

    held = [
        part for part in psutil.disk_partitions(all=True) if path.resolve().is_relative_to(part.mountpoint)
    ]
    return bool(held) and max(held, key=lambda part: len(part.mountpoint)).fstype in ("tmpfs", "ramfs")


def _without_cache(file: int) -> bool:
    """Ask for macOS's uncached reads; False elsewhere."""
    try:
        import fcntl
    except ImportError:
        return False
    command = getattr(fcntl, "F_NOCACHE", None)
    if command is None:
        return False
    fcntl.fcntl(file, command, 1)
    return True
