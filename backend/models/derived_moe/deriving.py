"""From a dense model's name to the files in ``data/moe``: the recipe, the artefact, and what it is worth."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.models.derived_moe.artefacts import MANIFEST, MoEManifest, write_artefact, write_manifest
from backend.models.derived_moe.settings import MoEShape, Training
from backend.models.wheel import Progress, silent

if TYPE_CHECKING:
    from backend.home import Home

SEARCH = "search.jsonl"
TRAINING_LOG = "training.jsonl"
TEXT = "wikitext2"
TOKENS, WINDOW = 16_384, 1_024


def derive(
    name: str,
    base: str,
    home: Home,
    data_root: Path | None,
    folder: Path,
    work: Path | None = None,
    shape: MoEShape | None = None,
    training: Training | None = None,
    tokens: int = TOKENS,
    window: int = WINDOW,
    device: str = "cpu",
    progress: Progress = silent,
) -> MoEManifest:
    """Derive a MoE, write its artefact, and measure it on WikiText-2's test split beside the dense model.

    Stages whose output lies in ``work`` are skipped, so a derivation that was cut off goes on.

    Args:
        name: What the catalog calls the result.
        base: Catalog name or folder of the dense model.
        home: Home of models; the working folder lies there by default (``moe/<name>``).
        data_root: Local data sets: the training text, and the evaluation text.
        folder: Where the artefact is written.
        work: Working folder of the stages.
        shape: Sizes of the experts.
        training: Text and training.
        tokens: Tokens of the evaluation text that are fed; 0 measures nothing.
        window: Tokens of an evaluation window.
        device: Where the distillation computes: "cpu", "cuda", "mps", or "auto" for the best there is.
        progress: Called with messages and shares.

    Raises:
        UserError: See :meth:`backend.models.derived_moe.recipe.Recipe.run`.
    """
    shape, training = shape or MoEShape(), training or Training()
    loaded, recipe = _recipe(name, base, home, data_root, work, shape, training, device, progress)
    tensors = recipe.run()
    manifest = write_artefact(
        folder,
        MoEManifest(
            name=name,
            base=base,
            base_sha256=loaded.sha256,
            parts_sha256="",
            shape=shape.model_dump(),
            training=training.model_dump(),
            text_sha256=recipe.text_sha256,
        ),
        tensors,
    )
    shutil.copyfile(recipe.log, folder / TRAINING_LOG)
    if tokens:
        scores = recipe.work / f"scores-{manifest.parts_sha256[:12]}.jsonl"
        report = _measure(loaded, folder, data_root, tokens // window, window, scores, progress)
        manifest = replace(manifest, report=report | {"training": _training_cost(recipe.log)})
        write_manifest(folder, manifest)
    progress(f"Wrote {folder / MANIFEST}", 1.0)
    return manifest


def probe_shapes(
    name: str,
    base: str,
    home: Home,
    data_root: Path | None,
    folder: Path,
    work: Path | None = None,
    shape: MoEShape | None = None,
    training: Training | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Compare shapes under an oracle, before one of them is trained, and write ``search.jsonl``.

    Args:
        name: What the catalog calls the result.
        base: Catalog name or folder of the dense model.
        home: As for :func:`derive`.
        data_root: As for :func:`derive`.
        folder: Where ``search.jsonl`` is written.
        work: As for :func:`derive`.
        shape: Of the derivation that the working folder belongs to.
        training: Text, and the tokens that the clustering looks at.
        progress: Called with messages and shares.
    """
    from backend.models.derived_moe.search import search

    shape, training = shape or MoEShape(), training or Training()
    loaded, recipe = _recipe(name, base, home, data_root, work, shape, training, "cpu", progress)
    recipe.begin()
    found = search(
        loaded.model,
        recipe.recorded,
        recipe.validation,
        recipe.work / SEARCH,
        training.search_tokens,
        progress,
    )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(recipe.work / SEARCH, folder / SEARCH)
    return found


def _recipe(
    name: str,
    base: str,
    home: Home,
    data_root: Path | None,
    work: Path | None,
    shape: MoEShape,
    training: Training,
    device: str,
    progress: Progress,
) -> tuple[Any, Any]:
    """Return the loaded dense model and its recipe."""
    from backend.models.derived_moe.recipe import Recipe
    from backend.models.derived_moe.text import training_files
    from backend.models.loading import choose_device, load_model

    training_files(data_root)  # told before the model is loaded
    place = choose_device(device)
    loaded = load_model(base, home, progress=progress)
    work = work or home.root / "moe" / name
    return loaded, Recipe(
        base, loaded.sha256, loaded.model, loaded.tokenizer, data_root, work, shape, training, place, progress
    )


def _measure(
    loaded: Any,
    folder: Path,
    data_root: Path | None,
    count: int,
    window: int,
    scores: Path,
    progress: Progress,
) -> dict[str, Any]:
    from backend.evaluation.texts import load_text
    from backend.evaluation.windows import cut_windows
    from backend.models.derived_moe import load_derived
    from backend.models.derived_moe.report import score_windows, summary

    text = load_text(TEXT, data_root)
    windows = cut_windows(text, loaded.tokenizer, count, window)
    moe = load_derived(loaded.model, folder)
    found = score_windows(loaded.model, moe, windows, scores, progress)
    return {"text": text.name, "text_sha256": text.sha256, "window": window, **summary(found)}


def _training_cost(log: Path) -> dict[str, Any]:
    """Return steps, tokens, wall seconds and the last validation KL of the distillation."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    watched = [line["validation_kl"] for line in lines if "validation_kl" in line]
    last = lines[-1] if lines else {"step": 0, "tokens": 0, "seconds": 0.0}
    cost: dict[str, Any] = {key: last[key] for key in ("step", "tokens", "seconds")}
    return cost | {"validation_kl": watched[-1] if watched else None}
