"""The derived MoE's files: one safetensors file and one JSON that says what it is and how it was made.

``parts.safetensors`` holds, stacked over the L layers (n neurons, hidden size d, N experts, rank r):

    neurons         [L, n]     int16    order of the dense neurons: shared expert, expert 0, …
    router          [L, N, d]  float16  the router's rows R
    scale           [L, N]     float32  s, the factor on each routed expert's down projection
    lora.gate_a     [L, r, d]  float16  corrections W + B A; the same for up
    lora.gate_b     [L, n, r]
    lora.down_a     [L, r, n]           rows and columns in the order of ``neurons``
    lora.down_b     [L, d, r]
    norm.attention  [L, d]     float32  gains before attention and before the MLP, in place of the dense ones
    norm.mlp        [L, d]
    bias.q, .k, .v  [L, …]     float16  biases of the attention's projections

``moe.json`` holds the settings, the sha256 of the parts, of the dense model's weights and of the training
text, and the report of what was measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.models.derived_moe.settings import MoEShape
from backend.models.wheel import file_sha256

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
"""Raised when the same files come to mean another model."""

MANIFEST = "moe.json"
PARTS = "parts.safetensors"
_FULL_PRECISION = ("scale", "norm.attention", "norm.mlp")
_AGAIN = "take the repository's files again (git checkout), or derive it again: docs/derived-moe.md"


@dataclass(frozen=True)
class MoEManifest:
    """What ``moe.json`` says.

    Attributes:
        name: The derived model's name in the catalog.
        base: The dense model's name in the catalog.
        base_sha256: sha256 of the dense model's weights.
        parts_sha256: sha256 of ``parts.safetensors``.
        shape: Sizes of the experts.
        format_version: ``FORMAT_VERSION`` when it was written.
        training: Settings of the training, for the reader.
        text_sha256: sha256 of each file of the training text.
        report: What was measured of it, for the reader.
    """

    name: str
    base: str
    base_sha256: str
    parts_sha256: str
    shape: dict[str, int]
    format_version: int = FORMAT_VERSION
    training: dict[str, Any] = field(default_factory=dict)
    text_sha256: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """sha256 over all that decides the assembled weights, in hex: results are stored under it."""
        decides = [self.format_version, self.base_sha256, self.parts_sha256, sorted(self.shape.items())]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def write_artefact(folder: Path, manifest: MoEManifest, tensors: Mapping[str, Tensor]) -> MoEManifest:
    """Write parts and manifest into ``folder`` and return the manifest with the parts' sha256.

    Args:
        folder: Where they go; made if absent.
        manifest: Its ``parts_sha256`` is filled in.
        tensors: As in the module's docstring, in any float type; they are rounded here.
    """
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{PARTS}.part"
    stored = {}
    for name, tensor in tensors.items():
        kind = torch.float32 if name in _FULL_PRECISION else torch.float16
        stored[name] = tensor.to(torch.int16 if name == "neurons" else kind).contiguous()
    save_file(stored, part)
    part.chmod(0o644)  # safetensors makes it readable by its owner only
    part.replace(folder / PARTS)
    finished = replace(manifest, parts_sha256=file_sha256(folder / PARTS))
    write_manifest(folder, finished)
    return finished


def write_manifest(folder: Path, manifest: MoEManifest) -> None:
    """Write ``moe.json``."""
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> MoEManifest:
    """Return what ``moe.json`` in ``folder`` says.

    Raises:
        UserError: It is absent, damaged, or of another version of the format.
    """
    path = folder / MANIFEST
    try:
        manifest = MoEManifest(**json.loads(path.read_text(encoding="utf-8")))
        MoEShape.parse(manifest.shape, str(path))
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}; {_AGAIN}.") from error
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged; {_AGAIN}.") from error
    if manifest.format_version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format {manifest.format_version}, and this version reads {FORMAT_VERSION}; {_AGAIN}."
        )
    return manifest


def read_parts(folder: Path, manifest: MoEManifest) -> dict[str, Tensor]:
    """Return the tensors of ``folder``, checked by sha256.

    Raises:
        UserError: The file is absent or not the one that the manifest names.
    """
    from safetensors.torch import load_file

    path = folder / PARTS
    found = file_sha256(path) if path.is_file() else "absent"
    if found != manifest.parts_sha256:
        raise UserError(
            f"{path} is not the file that {MANIFEST} names (sha256 {found[:12]}, expected "
            f"{manifest.parts_sha256[:12]}); {_AGAIN}."
        )
    tensors: dict[str, Tensor] = load_file(path)
    return tensors


def checked_manifest(folder: Path, base_sha256: str, identity: str) -> MoEManifest:
    """Return the manifest of ``folder`` if it fits the dense weights and is the one that the catalog pins.

    Args:
        folder: The artefact's folder.
        base_sha256: sha256 of the dense weights on this machine.
        identity: What the catalog pins.

    Raises:
        UserError: The manifest cannot be read, belongs to other dense weights, or is not the pinned one.
    """
    manifest = read_manifest(folder)
    require_base(manifest, base_sha256)
    if manifest.identity != identity:
        raise UserError(
            f"{folder / MANIFEST} is not the artefact that the catalog pins (identity "
            f"{manifest.identity[:12]}…, expected {identity[:12]}…); {_AGAIN} and pin the new one."
        )
    return manifest


def require_base(manifest: MoEManifest, base_sha256: str) -> None:
    """Refuse another dense model than the one the artefact was derived from.

    Raises:
        UserError: The hashes differ.
    """
    if base_sha256 != manifest.base_sha256:
        raise UserError(
            f"{manifest.name} was derived from {manifest.base} with sha256 {manifest.base_sha256[:12]}…, "
            f"and the weights here have {base_sha256[:12]}…: its permutations would mix the neurons of "
            f"another model; fetch {manifest.base} again, or derive the MoE from these weights."
        )
