"""The laboratory: keeps a model, texts and dense references warm between cells and between runs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backend.evaluation.dense_passes import DensePasses
from backend.evaluation.fidelity import DenseReference
from backend.evaluation.texts import Text, load_text
from backend.evaluation.windows import cut_windows
from backend.experiments.calibration import with_a_text
from backend.experiments.cells import Cell
from backend.experiments.evaluations import FidelityEvaluation
from backend.experiments.provenance import machine_name
from backend.experiments.sweep import Plan
from backend.home import Home
from backend.models.anatomy import find_anatomy
from backend.models.loading import LoadedModel, choose_device, load_model
from backend.models.sources import resolve
from backend.routing.anatomy import find_moe
from backend.routing.engine import RoutedEngine
from backend.sparsity.engine import MaskedEngine

if TYPE_CHECKING:
    from torch import Tensor

    from backend.methods import Method
    from backend.models.sources import ModelFolder

T = TypeVar("T")
REFERENCES_KEPT = 4
PROMPTS_KEPT = 2
"""Prompts that stay read: 1,024 tokens of a 1.7B model take 0.4 GB."""
Report = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Subject:
    """A loaded model, ready for experiments; its engine is made when it is first asked for."""

    loaded: LoadedModel

    @cached_property
    def engine(self) -> MaskedEngine:
        """The engine of mask policies; a mixture of experts raises ``UserError``."""
        return MaskedEngine(self.loaded.model, find_anatomy(self.loaded.model))

    @cached_property
    def routing(self) -> RoutedEngine:
        """The engine of routing policies; a dense model raises ``UserError``."""
        return RoutedEngine(find_moe(self.loaded.model))

    def fit(self, policy: Method, batches: Iterable[Tensor]) -> Any:
        """Return what a method of either kind fits on token ids of calibration sequences. # each [1, T]"""
        engine: Any = self.routing if policy.kind == "routing" else self.engine
        return engine.calibrate(policy, batches)

    @property
    def value_bytes(self) -> int:
        """Bytes of one weight as it runs."""
        if self.loaded.dtype == "int8":
            return 1
        return int(next(self.loaded.model.parameters()).element_size())


@dataclass
class Laboratory:
    """What a process needs for running cells; loads each thing once.

    Attributes:
        home: The home folder.
        data_root: Folder with local data sets, or None.
        device: "auto", "cpu", "cuda" or "mps".
        threads: torch's CPU threads; None leaves torch's own choice.
        report: Told of downloads and loading: a message and the share done, or None.
        passes: Dense passes of the evaluation that runs.
    """

    home: Home
    data_root: Path | None = None
    device: str = "auto"
    threads: int | None = None
    report: Report | None = None
    passes: DensePasses = field(default_factory=DensePasses, repr=False)
    _folders: dict[str, ModelFolder] = field(default_factory=dict, repr=False)
    _texts: dict[str, Text] = field(default_factory=dict, repr=False)
    _subject: tuple[tuple[str, str], Subject] | None = field(default=None, repr=False)
    _references: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict, repr=False)
    _prompts: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict, repr=False)

    def resolve(self, plan: Plan) -> Cell:
        """Return the cell of a plan: its model and texts by their hashes, no weights loaded."""
        text = self.text(plan.evaluation.text)
        folder = self._folder(plan.model)
        machine = machine_name(*self.machine()) if plan.evaluation.on_this_machine else None
        policy = with_a_text(self, plan.policy)
        fitted_on = None if policy.fitted_on is None else self.text(policy.fitted_on).sha256
        return Cell(folder.name, folder.sha256, policy, plan.evaluation, text.sha256, machine, fitted_on)

    def sha256(self, model: str) -> str:
        """Return the hash of a model's weights."""
        return self._folder(model).sha256

    def text(self, name: str) -> Text:
        """Return a text, read once."""
        if name not in self._texts:
            self._texts[name] = load_text(name, self.data_root)
        return self._texts[name]

    def subject(self, model: str, dtype: str) -> Subject:
        """Return a model, ready; the one before it is let go first."""
        key = (model, dtype)
        if self._subject is None or self._subject[0] != key:
            self._subject = None
            self._references.clear()
            self._prompts.clear()
            self.passes.clear()
            self._set_threads()
            loaded = load_model(model, self.home, dtype=dtype, device=self.device, progress=self.report)
            self._subject = key, Subject(loaded)
        return self._subject[1]

    def reference(self, subject: Subject, evaluation: FidelityEvaluation) -> DenseReference:
        """Return the dense reference of an evaluation."""
        text = self.text(evaluation.text)

        def make() -> DenseReference:
            windows = cut_windows(
                text, subject.loaded.tokenizer, evaluation.steps, evaluation.window, evaluation.stride
            )
            return DenseReference(windows.after(evaluation.prompt or 0), self.passes)

        return self.kept(
            (text.sha256, evaluation.tokens, evaluation.window, evaluation.stride, evaluation.prompt), make
        )

    def kept(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Return what the cells of a run share on the loaded model, made once; the last four are kept.

        Args:
            key: What decides it, beside the model.
            make: Makes it.
        """
        return _kept(self._references, REFERENCES_KEPT, key, make)

    def kept_prompt(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Return a prompt as a model has read it, made once; few are kept, apart from what cells share.

        Args:
            key: What decides it: model, dtype and tokens.
            make: Reads it.
        """
        return _kept(self._prompts, PROMPTS_KEPT, key, make)

    def machine(self) -> tuple[str, int]:
        """Return the device that models run on and torch's number of CPU threads."""
        import torch

        self._set_threads()
        return choose_device(self.device), torch.get_num_threads()

    def _folder(self, model: str) -> ModelFolder:
        if model not in self._folders:
            self._folders[model] = resolve(model, self.home, progress=self.report)
        return self._folders[model]

    def _set_threads(self) -> None:
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


def _kept(
    kept: OrderedDict[tuple[Any, ...], Any], most: int, key: tuple[Any, ...], make: Callable[[], T]
) -> T:
    """Return what stands under a key, made if it is not there; what was used longest ago is let go."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)
    found: T = kept[key]
    return found
