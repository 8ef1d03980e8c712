"""The file of experts: what lies where, written once, whole or not at all; read past the page cache."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from backend.decoding import expert_file
from backend.decoding.direct_reader import ALIGNMENT, DirectReader
from backend.decoding.expert_file import store_experts
from backend.decoding.expert_layers import find_expert_layers
from backend.decoding.expert_store import ExpertStore
from backend.errors import UserError
from tests.moe_tiny import tiny_moe

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def model():
    return tiny_moe("qwen2_moe")


@pytest.fixture(scope="module")
def layers(model):
    return find_expert_layers(model)


def record(file, layer, expert, *, direct=True):
    records = file.layers[layer]
    with DirectReader(file.path, direct=direct) as reader, mmap.mmap(-1, records.stride) as buffer:
        with memoryview(buffer) as view:
            reader.read(view, records.at(expert))
        return buffer[:]


def test_each_record_is_one_expert_gate_and_up_before_down(layers, tmp_path):
    file = store_experts(layers, tmp_path)
    for layer in (0, 2):
        for expert in (0, 7):
            module = layers[layer].module
            wanted = torch.cat([module.gate_up_proj[expert].flatten(), module.down_proj[expert].flatten()])
            content = record(file, layer, expert)
            assert content[: layers[layer].expert_bytes] == wanted.numpy().tobytes()
            assert not any(content[layers[layer].expert_bytes :])
            assert file.layers[layer].at(expert) % ALIGNMENT == len(content) % ALIGNMENT == 0
    assert file.path.stat().st_size == file.bytes


def test_it_is_written_once_and_named_by_its_content(layers, tmp_path):
    first = store_experts(layers, tmp_path)
    made = first.path.stat().st_mtime_ns
    assert store_experts(layers, tmp_path).path == first.path
    assert first.path.stat().st_mtime_ns == made
    other = store_experts(find_expert_layers(tiny_moe("qwen2_moe", seed=1)), tmp_path)
    assert other.path != first.path
    assert store_experts(layers, tmp_path, "by name").path not in (first.path, other.path)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("left", [0, 3_000, 60_000, 100_000])
def test_what_an_interrupted_writer_left_is_continued(layers, tmp_path, left):
    whole = store_experts(layers, tmp_path / "whole").path.read_bytes()
    folder = tmp_path / "interrupted"
    folder.mkdir()
    file = folder / store_experts(layers, tmp_path / "whole").path.name
    torn = bytearray(whole[:left])
    torn[left // 2 : left // 2 + 10] = b"\xff" * min(10, left - left // 2)  # damaged too
    file.with_suffix(".partial").write_bytes(torn)
    assert store_experts(layers, folder).path == file
    assert file.read_bytes() == whole


def test_a_full_disk_is_said_and_nothing_half_written_is_used(layers, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 1000, 1000))
        with pytest.raises(UserError, match=r"GB on disk and 0\.00 GB are free .*--home"):
            store_experts(layers, tmp_path)
    calls = iter(range(2))

    def replace_until_full(out, offset, content, replace=expert_file._replace):
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(out, offset, content)

    with monkeypatch.context() as patched:
        patched.setattr(expert_file, "_replace", replace_until_full)
        with pytest.raises(UserError, match=r"No space left on device.*continued"):
            store_experts(layers, tmp_path)
    assert not list(tmp_path.glob("*.experts"))
    assert store_experts(layers, tmp_path).path.stat().st_size == store_experts(layers, tmp_path).bytes


def test_a_file_of_other_weights_is_refused(model, layers, tmp_path):
    file = store_experts(layers, tmp_path, "a name that says nothing")
    with file.path.open("r+b") as stream:
        stream.seek(file.layers[1].at(1) + 40)
        stream.write(b"\x55\x55")
    with pytest.raises(UserError, match="does not hold this model's weights"):
        ExpertStore(model, layers, file, slots=4)


def test_a_file_that_is_cut_off_or_gone_is_said(model, layers, tmp_path):
    file = store_experts(layers, tmp_path)
    os.truncate(file.path, file.layers[0].at(3))
    with pytest.raises(UserError, match="cut off"):
        ExpertStore(model, layers, file, slots=4)
    assert store_experts(layers, tmp_path).path.stat().st_size == file.bytes  # written again
    file.path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        ExpertStore(model, layers, file, slots=4)


def test_every_way_past_the_page_cache_reads_the_same(layers, tmp_path, monkeypatch):
    file = store_experts(layers, tmp_path)
    asked = []
    advise = os.posix_fadvise

    def advised(*arguments):
        asked.append(arguments[1:])
        return advise(*arguments)

    monkeypatch.setattr(os, "posix_fadvise", advised)
    by_default = record(file, 1, 2)
    assert record(file, 1, 2, direct=False) == by_default
    assert asked == []
    preadv = os.preadv

    def refuses_direct(handle, buffers, offset):
        import fcntl

        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return preadv(handle, buffers, offset)

    monkeypatch.setattr(os, "preadv", refuses_direct)
    with DirectReader(file.path) as reader:
        assert reader.bypass == "posix_fadvise"
    assert record(file, 1, 2) == by_default
    dropped = (file.layers[1].at(2), file.layers[1].stride, os.POSIX_FADV_DONTNEED)
    assert asked[-1] == dropped
    with DirectReader(file.path, direct=False) as reader:
        assert reader.bypass == "none"


def test_a_system_without_any_way_past_says_so(layers, tmp_path, monkeypatch):
    file = store_experts(layers, tmp_path)
    monkeypatch.delattr(os, "O_DIRECT")
    monkeypatch.delattr(os, "posix_fadvise")
    with pytest.raises(UserError, match="no way past its page cache"):
        DirectReader(file.path)
    monkeypatch.delattr(os, "preadv")
    with pytest.raises(UserError, match="use Linux or macOS"):
        DirectReader(file.path, direct=False)


def test_a_memory_file_system_is_no_disk(layers):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("no memory file system here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        file = store_experts(layers, Path(folder))
        with DirectReader(file.path) as reader:
            assert reader.bypass == "none"


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="no direct reads on this system")
def test_direct_reads_leave_nothing_in_the_page_cache(layers, tmp_path):
    """What O_DIRECT promises, seen from outside: the file's pages are not in memory after a read."""
    file = store_experts(layers, tmp_path)
    with DirectReader(file.path) as reader:
        if reader.bypass != "O_DIRECT":
            pytest.skip("this file system refuses direct reads")
    with file.path.open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    record(file, 0, 0)
    assert _cached_pages(file.path) == 0
    record(file, 0, 0, direct=False)
    assert _cached_pages(file.path) > 0


def _cached_pages(path):
    import ctypes

    size = path.stat().st_size
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    with path.open("rb") as stream:
        at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, stream.fileno(), 0)
        pages = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
        assert libc.mincore(at, size, pages) == 0
        libc.munmap(at, size)
    return sum(page & 1 for page in pages)
