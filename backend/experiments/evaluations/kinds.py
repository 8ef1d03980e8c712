"""What an evaluation is: frozen settings that a sweep file names by ``kind``, and how its cells are run.

A kind is one file beside this one, imported in ``__init__``. Importing it never imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import SerializerFunctionWrapHandler, model_serializer

from backend.errors import UserError
from backend.methods import KINDS, Method
from backend.registry import Registry
from backend.settings import Settings, setting
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from backend.experiments.cells import Cell
    from backend.experiments.events import Measurement
    from backend.experiments.laboratory import Laboratory
    from backend.home import Home

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
DEFAULT_KIND = "fidelity"


class Outcome(Protocol):
    """What a cell has measured so far."""

    @property
    def windows(self) -> dict[str, list[float]]:
        """Metric → one value a window (or item), for paired differences; empty if there are none."""
        ...

    def measurements(self, value_bytes: int) -> list[Measurement]:
        """Return everything measured, as it is stored.

        Args:
            value_bytes: Bytes of one weight as it ran.
        """
        ...


@runtime_checkable
class KeptOutcome(Outcome, Protocol):
    """What leaves more behind than its measurements: a file beside the finished cell."""

    def keep(self, home: Home, cell: Cell, provenance: dict[str, Any]) -> None:
        """Write it; a full disk raises ``UserError``."""
        ...


class Evaluation(Settings):
    """One way to evaluate a policy on a model; subclasses are the kinds."""

    kind: ClassVar[str]
    """Its name in sweep files and in the store."""
    version: ClassVar[int] = 1
    """Raised when the same settings give other results, so that stored cells are run again."""
    takes: ClassVar[type[Method]] = Policy
    """The kind of methods that can be evaluated this way: mask policies, or routing policies."""
    on_this_machine: ClassVar[bool] = False
    """Its results hold for the machine that made them: the machine is part of a cell's id."""

    text: str = setting("wikitext2", "A named text (wikitext2, prose) or the path of a text file.")
    dtype: Dtype = setting(
        "float32", "Precision of weights and arithmetic; int8: linear weights in 8 bits, the rest float32."
    )

    @property
    def steps(self) -> int:
        """How many outcomes a cell yields, one after the other: the grain of progress and of cancelling."""
        raise NotImplementedError

    def admit(self, method: Method) -> None:
        """Raise ``UserError`` if a method cannot be evaluated this way: its kind, or its settings."""
        if not isinstance(method, self.takes):
            others = [name for name, kind in EVALUATIONS.items() if isinstance(method, kind.takes)]
            raise UserError(
                f"{method.title} cannot be evaluated by {self.kind}, which takes {KINDS[self.takes.kind]}; "
                f"give the evaluation another kind ({', '.join(others)})."
            )
        self.check(method)

    def check(self, policy: Any) -> None:
        """Raise ``UserError`` if a policy of the right kind cannot be evaluated this way."""

    def outcomes(self, laboratory: Laboratory, model: str, policy: Any) -> Iterator[Outcome]:
        """Run a cell step by step; between two steps the model is dense and untouched.

        Args:
            laboratory: Models and texts.
            model: Catalog name, hub id or folder.
            policy: The policy, of the kind that it takes.

        Yields:
            The growing result, ``steps`` times.
        """
        raise NotImplementedError

    @model_serializer(mode="wrap")
    def _with_its_kind(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Name the kind; the default one is left out, so that older files and ids stay what they were."""
        settings: dict[str, Any] = serialise(self)
        return settings if self.kind == DEFAULT_KIND else {"kind": self.kind, **settings}


EVALUATIONS: Registry[type[Evaluation]] = Registry("kind of evaluation")
"""Every kind of evaluation there is, by name."""


def evaluation_kind(evaluation: type[Evaluation]) -> type[Evaluation]:
    """Class decorator: register an evaluation under its ``kind``."""
    return EVALUATIONS.add(evaluation.kind, evaluation)


def make_evaluation(values: dict[str, Any]) -> Evaluation:
    """Return the evaluation that a sweep file says; a wrong kind or setting raises ``UserError``."""
    settings = dict(values)
    kind = str(settings.pop("kind", DEFAULT_KIND))
    return EVALUATIONS[kind].parse(settings, "evaluation")
