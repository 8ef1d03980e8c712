"""Fitting methods on a calibration text: what is fitted is kept in the home, by what decides it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backend.calibrated import DEFAULT_TEXT, WITHOUT_DATA, CalibratedMethod
from backend.errors import UserError
from backend.evaluation.overlap import Overlap, overlap
from backend.evaluation.windows import Windows, last_windows
from backend.experiments.evaluations.kinds import KeptOutcome, Outcome
from backend.experiments.events import Measurement
from backend.methods import Method

if TYPE_CHECKING:
    from torch import Tensor

    from backend.experiments.cells import Cell
    from backend.experiments.laboratory import Laboratory
    from backend.home import Home

M = TypeVar("M", bound=Method)

WINDOW = 256
"""Tokens of one calibration sequence."""
MOST_COMMON = 0.01
"""The largest share of the evaluation's 13-grams that what is read for calibration may have too."""
FOLDER = "calibrations"


@dataclass(frozen=True)
class Calibration:
    """What a policy was fitted to, beside what it shares with the evaluation.

    Attributes:
        fitted: Tensors by name, for ``context.calibration``; None for a policy without calibration.
        overlap: Common 13-grams of what was read for it and what is evaluated.
    """

    fitted: dict[str, Tensor] | None = None
    overlap: Overlap | None = None

    def noted(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Yield the outcomes of a cell, each with the overlap among its measurements."""
        for outcome in outcomes:
            if self.overlap is None:
                yield outcome
            elif isinstance(outcome, KeptOutcome):
                yield _NotedKept(outcome, self.overlap)
            else:
                yield _Noted(outcome, self.overlap)


@dataclass(frozen=True)
class _Noted:
    """An outcome with the overlap."""

    outcome: Outcome
    overlap: Overlap

    @property
    def windows(self) -> dict[str, list[float]]:
        return self.outcome.windows

    def measurements(self, value_bytes: int) -> list[Measurement]:
        said: Measurement = {
            "metric": "calibration_overlap",
            "value": self.overlap.share,
            "stderr": None,
            "n": self.overlap.whole,
            "unit": "share of the evaluation's 13-grams",
            "how": "measured",
        }
        return [*self.outcome.measurements(value_bytes), said]


@dataclass(frozen=True)
class _NotedKept(_Noted):
    """The same of an outcome that leaves a file behind."""

    outcome: KeptOutcome

    def keep(self, home: Home, cell: Cell, provenance: dict[str, Any]) -> None:
        self.outcome.keep(home, cell, provenance)


def with_a_text(laboratory: Laboratory, policy: M) -> M:
    """Return the policy with a calibration text that there is: the stand-in where the default one is not."""
    if policy.fitted_on == DEFAULT_TEXT:
        try:
            laboratory.text(DEFAULT_TEXT)
        except UserError:
            return policy.model_copy(update={"calibration": WITHOUT_DATA})
    return policy


def calibrate(
    laboratory: Laboratory, model: str, dtype: str, policy: Method, evaluated: Iterable[Sequence[int]]
) -> Calibration:
    """Return what a policy fits on its calibration text, from the home if it is there.

    The same settings, model and text give the same tensors, up to how the processor and its number of threads
    round sums.

    Args:
        laboratory: Models and texts.
        model: Catalog name, hub id or folder.
        dtype: Precision of the model.
        policy: The policy.
        evaluated: Sequences of token ids that it is evaluated on.

    Raises:
        UserError: The calibration text is too short, or what is read of it is also evaluated.
    """
    if not isinstance(policy, CalibratedMethod) or policy.fitted_on is None:
        return Calibration()
    subject = laboratory.subject(model, dtype)
    text = laboratory.text(policy.fitted_on)
    windows: Windows = laboratory.kept(
        ("calibration", text.sha256, policy.calibration_tokens),
        lambda: last_windows(
            text, subject.loaded.tokenizer, max(1, policy.calibration_tokens // WINDOW), WINDOW
        ),
    )
    shared = overlap(windows.ids.tolist(), evaluated)
    if shared.share > MOST_COMMON:
        raise UserError(
            f"{shared.share:.1%} of the 13-token runs that are evaluated are in what {policy.title} is "
            f"fitted on, the end of {text.name}: they must not overlap, so give another calibration text."
        )
    decides = {
        "model_sha256": laboratory.sha256(model),
        "dtype": dtype,
        "text_sha256": text.sha256,
        "window": WINDOW,
        "policy": policy.name,
        "version": type(policy).version,
        "settings": policy.deciding(),
    }
    path = laboratory.home.root / FOLDER / f"{_hash(decides)}.safetensors"
    if not path.is_file():
        with _written(path) as part:
            batches = _reported(laboratory, policy, windows.ids.to(subject.loaded.model.device).split(1))
            _save(part, subject.fit(policy, batches), decides)
    from safetensors.torch import load_file

    return Calibration(load_file(path), shared)


def _reported(laboratory: Laboratory, policy: Method, batches: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield the batches; the laboratory says how far the reading is, and that fitting follows."""
    for done, batch in enumerate(batches):
        if laboratory.report is not None:
            laboratory.report(f"{policy.title}: reading the calibration text", done / len(batches))
        yield batch
    if laboratory.report is not None:
        laboratory.report(f"{policy.title}: fitting", None)


def _hash(decides: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _written(path: Path) -> Iterator[Path]:
    """Give a file to write, which becomes ``path`` once it is whole.

    Raises:
        UserError: The disk is full or the home cannot be written.
    """
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()  # known before anything is fitted
        yield part
        part.replace(path)
    except OSError as error:
        raise UserError(f"What was fitted cannot be written to {path.parent} ({error.strerror}).") from error
    finally:
        with suppress(OSError):
            part.unlink()


def _save(path: Path, fitted: dict[str, Tensor], decides: dict[str, Any]) -> None:
    """Write what was fitted beside what decided it."""
    from safetensors.torch import save

    said = {name: json.dumps(value) for name, value in decides.items()}
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in fitted.items()}, metadata=said))
