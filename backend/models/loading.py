"""Loads a model, ready to be measured: in eval mode, without gradients, and only if it fits into memory."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.home import Home
from backend.models.conversion import quiet_transformers
from backend.models.quantization import round_to_int8
from backend.models.sources import ModelFolder, resolve, weight_files
from backend.models.wheel import Progress, silent
from backend.registry import did_you_mean

if TYPE_CHECKING:
    import torch

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 5}
"""The dtypes a model can be loaded in, with the bytes that a weight takes in memory.

int8 is float32 rounded to what 8 bits hold, beside the 8-bit copy that decoding reads.
"""

DEVICES = ("auto", "cpu", "cuda", "mps")

_STORED_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MARGIN_SHARE = 0.15  # activations, the tokenizer, what loading holds twice for a moment
_MARGIN_BYTES = 300e6


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        name: What results call it.
        sha256: Identity of its weights, in hex.
        model: The Hugging Face causal language model: eval mode, ``requires_grad`` off.
        tokenizer: Its tokenizer.
        config: Its configuration.
        dtype: "float32", "float16", "bfloat16", or "int8" for float32 whose linear weights were rounded.
        device: Where its weights lie: "cpu", "cuda" or "mps".
        load_seconds: How long loading took, in seconds, without fetching.
    """

    name: str
    sha256: str
    model: Any
    tokenizer: Any
    config: Any
    dtype: str
    device: str
    load_seconds: float


def load_model(
    model: str, home: Home, dtype: str = "float32", device: str = "cpu", progress: Progress | None = None
) -> LoadedModel:
    """Fetch ``model`` if need be, check that it fits into memory, and load it.

    Attention runs in transformers' own choice: sdpa, or eager where a family's sdpa would be wrong (Gemma 2).

    Args:
        model: A catalog name, a hub id or a folder; see :func:`backend.models.sources.resolve`.
        home: Where fetched models lie.
        dtype: The weights' type in memory: "float32", "float16" or "bfloat16"; "int8" rounds the linear
            weights of float32 to 8 bits.
        device: "cpu", "cuda", "mps", or "auto" for the best there is.
        progress: Called with messages and shares of each step.

    Raises:
        UserError: The model cannot be fetched, is no dense decoder that transformers knows, or does not fit.
    """
    report = progress or silent
    if dtype not in DTYPE_BYTES:
        raise UserError(f"There is no dtype '{dtype}'; {did_you_mean(dtype, list(DTYPE_BYTES))}")
    place = choose_device(device)
    folder = resolve(model, home, report)
    check_memory(folder, dtype, place)
    report(f"Loading {folder.title}", None)
    start = time.perf_counter()
    network, tokenizer = _load(folder, dtype, place)
    seconds = time.perf_counter() - start
    return LoadedModel(
        name=folder.name,
        sha256=folder.sha256,
        model=network,
        tokenizer=tokenizer,
        config=network.config,
        dtype=dtype,
        device=place,
        load_seconds=seconds,
    )


def choose_device(device: str) -> str:
    """Return the device that ``device`` stands for, "auto" being the best there is.

    Raises:
        UserError: The name is unknown, or this machine has no such device.
    """
    import torch

    if device not in DEVICES:
        raise UserError(f"There is no device '{device}'; {did_you_mean(device, list(DEVICES))}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there[device]:
        present = ", ".join(name for name, is_there in there.items() if is_there)
        raise UserError(f"PyTorch sees no {device} device here; use one of: {present}, or auto.")
    return device


def weight_bytes(folder: Path, dtype: str) -> int:
    """Return how many bytes the weights of ``folder`` take in ``dtype``, from the safetensors headers."""
    total = 0
    for file in weight_files(folder):
        for tensor in _header(file).values():
            count = math.prod(tensor["shape"])
            stored = tensor["data_offsets"][1] - tensor["data_offsets"][0]
            total += count * DTYPE_BYTES[dtype] if tensor["dtype"] in _STORED_BYTES else stored
    return total


def check_memory(folder: ModelFolder, dtype: str, device: str) -> None:
    """Refuse a model whose weights, with a margin for what computing needs, exceed the free memory.

    Raises:
        UserError: With the gigabytes needed and free, and what would help.
    """
    needed = {
        name: weight_bytes(folder.path, name) * (1 + _MARGIN_SHARE) + _MARGIN_BYTES for name in DTYPE_BYTES
    }
    free = free_memory(device)
    if needed[dtype] <= free:
        return
    halves = [name for name in ("bfloat16", "float16") if needed[name] < needed[dtype]]
    if halves and needed[halves[0]] <= free:
        advice = f"load it as {halves[0]} ({needed[halves[0]] / 1e9:.1f} GB) or"
    else:
        advice = "take a smaller model or"
    where = "memory" if device == "cpu" else f"{device} memory"
    raise UserError(
        f"{folder.name} in {dtype} needs about {needed[dtype] / 1e9:.1f} GB of {where} and "
        f"{free / 1e9:.1f} GB are free; {advice} free some memory."
    )


def free_memory(device: str) -> float:
    """Return the bytes that can still be taken on ``device``, within a container's limit."""
    if device == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    import psutil

    available = float(psutil.virtual_memory().available)
    return min(available, _container_room(Path("/sys/fs/cgroup")))


def _container_room(cgroup: Path) -> float:
    """Return what a cgroup (v2) still allows, in bytes; infinity without a limit."""
    try:
        limit = float((cgroup / "memory.max").read_text())
        used = float((cgroup / "memory.current").read_text())
        statistics = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return math.inf
    return limit - used + float(statistics.get("inactive_file", 0))  # cached files give way


def _header(file: Path) -> dict[str, Any]:
    """Return the tensors' descriptions of a safetensors file: 8 bytes of length, then JSON."""
    try:
        with file.open("rb") as stream:
            header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    except (ValueError, MemoryError, OverflowError) as error:
        raise UserError(f"{file} is no safetensors file or is damaged; fetch it again.") from error
    header.pop("__metadata__", None)
    return header


def _load(folder: ModelFolder, dtype: str, device: str) -> tuple[Any, Any]:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if folder.derived is not None and dtype == "int8":
        raise UserError(
            f"{folder.name} cannot be rounded to int8: its experts are stacked in one weight, which the "
            "kernels for int8 do not read; load it as float32 or bfloat16."
        )
    torch_dtype: torch.dtype = torch.float32 if dtype == "int8" else getattr(torch, dtype)
    with quiet_transformers():
        try:
            config: Any = AutoConfig.from_pretrained(folder.path, trust_remote_code=False)
            _require_dense(folder, config)
            model, outcome = AutoModelForCausalLM.from_pretrained(
                folder.path,
                config=config,
                dtype=torch_dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, with the other holes
            )
        except (ValueError, KeyError, ImportError) as error:
            raise UserError(
                f"transformers cannot load {folder.name} as a causal language model "
                f"({_first_line(error)}); code that comes with a model is never run."
            ) from error
        except SafetensorError as error:
            raise UserError(
                f"The weight files of {folder.name} are damaged ({_first_line(error)}); fetch them again."
            ) from error
        _require_complete(folder, outcome)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder.path, trust_remote_code=False)
        except (ValueError, OSError, KeyError, ImportError) as error:
            raise UserError(
                f"{folder.name} has no tokenizer that can be read ({_first_line(error)}); "
                "its files belong beside the weights."
            ) from error
    if folder.derived is not None:
        from backend.models.derived_moe import load_derived

        model = load_derived(model, folder.derived)
    if dtype == "int8":
        round_to_int8(model)
    if device != "cpu":
        model = model.to(device)
    return model.eval().requires_grad_(False), tokenizer


def _require_dense(folder: ModelFolder, config: Any) -> None:
    if (quantised := getattr(config, "quantization_config", None)) is not None:
        method = quantised.get("quant_method", "?") if isinstance(quantised, dict) else "?"
        raise UserError(
            f"{folder.name} is stored quantised ({method}), and which weights are read can only be told of "
            "plain ones; take its unquantised release."
        )


def _require_complete(folder: ModelFolder, outcome: dict[str, Any]) -> None:
    """Refuse weights with holes: transformers would fill them with random numbers."""
    absent = [*outcome["missing_keys"], *(key[0] for key in outcome["mismatched_keys"])]
    if absent:
        raise UserError(
            f"The weight files of {folder.name} lack {len(absent)} of the weights that its config.json asks "
            f"for ({absent[0]}); the folder mixes two models or is not a whole one."
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".")[:200] if lines else type(error).__name__
