"""The file of an expert store: every routed expert as one record, which one read brings into memory.

Layout: a header of JSON, padded to 4096 bytes; then the records, layer by layer, expert by expert. A record
is the expert's parts one after the other (gate and up, down, biases; the bundling of arXiv 2312.11514 for
whole experts), padded to a multiple of 4096 bytes, so that direct reads fit.

The file's name is the hash of what it holds. It is written beside its place and moved there when it is whole;
what an interrupted writer left is compared with the model and continued.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from backend.decoding.direct_reader import ALIGNMENT, DirectReader
from backend.decoding.expert_layers import ExpertLayer
from backend.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "sparsity-lens expert store 1"
Report = Callable[[str, float | None], None]


@dataclass(frozen=True)
class LayerRecords:
    """Where one layer's experts lie.

    Attributes:
        experts: N.
        offset: Where the first record begins, in bytes.
        used: Bytes of one expert.
        stride: Bytes of one record: ``used``, padded.
    """

    experts: int
    offset: int
    used: int
    stride: int

    def at(self, expert: int) -> int:
        """Return where an expert's record begins, in bytes."""
        return self.offset + expert * self.stride


@dataclass(frozen=True)
class ExpertFile:
    """A whole file of experts.

    Attributes:
        path: Where it lies.
        layers: Its layers, in the model's order.
    """

    path: Path
    layers: tuple[LayerRecords, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the file."""
        last = self.layers[-1]
        return last.at(last.experts)


def store_experts(
    layers: Sequence[ExpertLayer],
    folder: Path,
    identity: str | None = None,
    report: Report = lambda message, share: None,
) -> ExpertFile:
    """Return the file of these experts, written if it is not there.

    Args:
        layers: The model's experts.
        folder: Where files of experts lie; made if absent.
        identity: What names the weights (a model's sha256 and dtype); None hashes the weights themselves.
        report: Told of the progress.

    Raises:
        UserError: The disk is full or cannot be written; what was written is continued next time.
    """
    described = _described(layers, identity or _hash(layers))
    header = _header(described)
    name = hashlib.sha256(header).hexdigest()[:20]
    file = ExpertFile(folder / f"{name}.experts", _records(layers, len(header)))
    if _is_whole(file, header):
        return file
    partial = file.path.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_room(file, partial)
        with partial.open("r+b" if partial.exists() else "w+b") as out:
            _write(out, header, layers, file, report)
        partial.replace(file.path)
        _sync_folder(folder)
    except OSError as error:
        raise UserError(
            f"The experts cannot be written to {folder} ({error.strerror}; {file.bytes / 1e9:.2f} GB in "
            "all); make room or name another home with --home. What was written is continued."
        ) from error
    return file


def verify(layers: Sequence[ExpertLayer], file: ExpertFile, reader: DirectReader) -> None:
    """Read one expert of each layer as a store would, and compare it with the model's.

    Raises:
        UserError: They differ, or the file cannot be read.
    """
    for layer, records in zip(layers, file.layers, strict=True):
        expert = layer.index % records.experts
        with mmap.mmap(-1, records.stride) as buffer:
            with memoryview(buffer) as view:
                reader.read(view, records.at(expert))
            if buffer[:] != _record(layer, expert, records.stride):
                raise UserError(
                    f"The expert store {file.path} does not hold this model's weights; delete it, and it is "
                    "written again."
                )


def _described(layers: Sequence[ExpertLayer], identity: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "identity": identity,
        "dtype": str(layers[0].dtype),
        "layers": [
            {
                "name": layer.name,
                "experts": layer.experts,
                "parts": {p: list(s) for p, s in layer.shapes.items()},
            }
            for layer in layers
        ],
    }


def _header(described: dict[str, Any]) -> bytes:
    text = json.dumps(described, sort_keys=True).encode() + b"\n"
    return text.ljust(_padded(len(text)), b" ")


def _records(layers: Sequence[ExpertLayer], offset: int) -> tuple[LayerRecords, ...]:
    found = []
    for layer in layers:
        records = LayerRecords(layer.experts, offset, layer.expert_bytes, _padded(layer.expert_bytes))
        found.append(records)
        offset = records.at(records.experts)
    return tuple(found)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _is_whole(file: ExpertFile, header: bytes) -> bool:
    try:
        with file.path.open("rb") as stream:
            return stream.read(len(header)) == header and file.path.stat().st_size == file.bytes
    except OSError:
        return False


def _require_room(file: ExpertFile, partial: Path) -> None:
    there = partial.stat().st_size if partial.exists() else 0
    free = shutil.disk_usage(partial.parent).free
    if file.bytes - there > free:
        raise UserError(
            f"The experts take {file.bytes / 1e9:.2f} GB on disk and {free / 1e9:.2f} GB are free in "
            f"{partial.parent}; make room or name another home with --home."
        )


def _write(
    out: BinaryIO, header: bytes, layers: Sequence[ExpertLayer], file: ExpertFile, report: Report
) -> None:
    """Write what is not there yet; a layer that is there already is compared with the model's."""
    _replace(out, 0, header)
    for layer, records in zip(layers, file.layers, strict=True):
        report("Writing experts to disk", layer.index / len(layers))
        _replace(out, records.offset, _layer_bytes(layer, records))
        out.flush()
        os.fsync(out.fileno())
    out.truncate(file.bytes)


def _replace(out: BinaryIO, offset: int, content: bytes) -> None:
    out.seek(offset)
    if out.read(len(content)) != content:
        out.seek(offset)
        out.write(content)


def _layer_bytes(layer: ExpertLayer, records: LayerRecords) -> bytes:
    """Return one layer's records, padding included."""
    return b"".join(_record(layer, expert, records.stride) for expert in range(records.experts))


def _record(layer: ExpertLayer, expert: int, stride: int) -> bytes:
    raw = b"".join(_raw(layer.parameter(part)[expert]) for part in layer.parts)
    return raw.ljust(stride, b"\0")


def _raw(weights: Tensor) -> bytes:
    import torch

    flat = weights.detach().contiguous().reshape(-1).view(torch.uint8)
    return bytes(flat.numpy().tobytes())


def _hash(layers: Sequence[ExpertLayer]) -> str:
    digest = hashlib.sha256()
    for layer in layers:
        for part in layer.parts:
            digest.update(_raw(layer.parameter(part)))
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the file's new name last; where folders cannot be opened (Windows), it lasts by itself."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
