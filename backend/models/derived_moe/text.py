"""The training text: WikiText-2's train split and public-domain prose, never the test text."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.models.derived_moe.settings import Training

if TYPE_CHECKING:
    from torch import Tensor

WIKI = "wikitext2/wiki.train.raw.head.txt"
PROSE = "corpus"
_GUTENBERG = re.compile(r"\*\*\* ?START OF [^\n]*\*\*\*\n(.*?)\*\*\* ?END OF ", re.DOTALL)


@dataclass(frozen=True)
class TrainingText:
    """Windows of training text, in the order they are used.

    Attributes:
        calibration: For clustering and the routers' regression. # [c, W]
        training: For the distillation. # [n, W]
        validation: Held out of all training. # [v, W]
        sha256: Of the files' bytes in their order, by name.
    """

    calibration: Tensor
    training: Tensor
    validation: Tensor
    sha256: dict[str, str]


def read_training_text(root: Path | None, tokenizer: Any, settings: Training) -> TrainingText:
    """Tokenise the training files under ``root`` and cut them into windows.

    WikiText and prose windows are each shuffled and then mixed in the share that the settings ask for, so
    every stretch of the training sees both. The calibration windows are trained on again in the distillation.

    Args:
        root: The data root.
        tokenizer: The dense model's tokenizer.
        settings: Window length, mixture, seed.

    Raises:
        UserError: There is no data root, it lacks the files, or they are too short.
    """
    import torch

    files = training_files(root)
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    rng = random.Random(settings.seed)
    wiki = _windows([files[WIKI]], tokenizer, settings.window)
    prose = _windows([path for name, path in files.items() if name != WIKI], tokenizer, settings.window)
    rng.shuffle(wiki)
    rng.shuffle(prose)
    mixed = _mix(wiki, prose, settings.wiki_share)
    needed = settings.calibration_windows + settings.validation_windows
    if len(mixed) < needed + 1:
        raise UserError(
            f"The training text under {root} gives {len(mixed)} windows of {settings.window} tokens, and "
            f"more than {needed} are needed; take shorter windows or the whole text."
        )
    windows = torch.tensor(mixed, dtype=torch.int32)
    held = len(mixed) - settings.validation_windows
    return TrainingText(windows[: settings.calibration_windows], windows[:held], windows[held:], hashes)


def training_files(root: Path | None) -> dict[str, Path]:
    """Return the training files under ``root`` by their name there: WikiText first, then the prose by name.

    Raises:
        UserError: There is no data root, or it lacks one of the two.
    """
    if root is None:
        raise UserError(
            f"Deriving the MoE reads {WIKI} and {PROSE}/*.txt under a data root; name one with --data-root "
            "or SPARSITY_LENS_DATA."
        )
    wiki, prose = root / WIKI, sorted((root / PROSE).glob("*.txt"))
    if not wiki.is_file() or not prose:
        missing = WIKI if not wiki.is_file() else f"{PROSE}/*.txt"
        raise UserError(f"The data root {root} has no {missing}, which the MoE is trained on.")
    return {WIKI: wiki, **{f"{PROSE}/{path.name}": path for path in prose}}


def _windows(files: list[Path], tokenizer: Any, window: int) -> list[list[int]]:
    """Return the whole windows of the files' tokens, without the licence around a Gutenberg book."""
    cut = []
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        if (book := _GUTENBERG.search(text)) is not None:
            text = book[1]
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        cut += [ids[start : start + window] for start in range(0, len(ids) - window + 1, window)]
    return cut


def _mix(wiki: list[list[int]], prose: list[list[int]], wiki_share: float) -> list[list[int]]:
    """Interleave the two lists so that every prefix has the share; ends when the one that is due is empty."""
    mixed: list[list[int]] = []
    taken = [0, 0]
    sources = (wiki, prose)
    while True:
        due = 0 if taken[0] < wiki_share * (len(mixed) + 1) - 1e-9 else 1
        if taken[due] == len(sources[due]):
            return mixed
        mixed.append(sources[due][taken[due]])
        taken[due] += 1
