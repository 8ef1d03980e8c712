"""What every method is, of either kind: frozen settings, a version, and facts about it.

A mask policy (:mod:`backend.sparsity`) says which columns and neurons of a dense model a token reads; a
routing policy (:mod:`backend.routing`) which experts of a mixture it uses. Each kind has its own registry;
their names are one namespace, so that a sweep, a stored cell or a figure can name a method of either kind.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeVar

from backend.registry import Registry
from backend.settings import Settings


class Method(Settings):
    """A method: class attributes are facts about it; fields are its settings."""

    kind: ClassVar[Literal["mask", "routing"]]
    """What it decides: masks of a dense model's weights, or a mixture's experts."""
    name: ClassVar[str]
    """The method's name in the registry, the CLI and the store."""
    title: ClassVar[str]
    """Its name for people, as in legends."""
    version: ClassVar[int] = 1
    """Raised when the same settings give other results, so that stored cells are run again."""
    summary: ClassVar[str]
    """One sentence on what it does."""
    equation: ClassVar[str]
    """Its choice, in LaTeX."""
    paper: ClassVar[str]
    """Where it comes from, with the arXiv number; "" for a control."""
    limits: ClassVar[str] = ""
    """What to keep in mind when its numbers are read."""
    label_free: ClassVar[bool] = True
    """It does not look at the token being predicted."""
    realisable: ClassVar[bool] = True
    """Its choice costs less than it saves; one that needs what it skips is an oracle."""
    control: ClassVar[bool] = False
    """It chooses at random: there to be beaten, not to be used, so it is never on a front."""
    looks_at_cache: ClassVar[bool] = False
    """Its choice depends on what is in fast memory, so no one trace serves every cache size."""
    sweep_setting: ClassVar[str | None] = None
    """The setting that a sweep varies and a slider drags."""

    @property
    def fitted_on(self) -> str | None:
        """Name of the text that it is fitted on before it runs; None for a method without calibration."""
        return None

    @property
    def how(self) -> Literal["measured", "oracle"]:
        """How a quality figure of this policy was got: an oracle's is no measurement of a usable method."""
        return "measured" if self.realisable and self.label_free else "oracle"


KINDS = {
    "mask": "mask policies, for dense models",
    "routing": "routing policies, for mixtures of experts",
}
"""What the kinds are called, and which models they are for."""

M = TypeVar("M", bound=Method)

_EVERY: Registry[type[Method]] = Registry("method")


def add_method(kind: Registry[type[M]], added: type[M]) -> type[M]:
    """Register a method with its kind and among all methods; a name that is taken is a programming error."""
    _EVERY.add(added.name, added)
    return kind.add(added.name, added)


def every_method() -> Registry[type[Method]]:
    """Return every method there is by name: mask policies, then routing policies."""
    import backend.routing
    import backend.sparsity  # noqa: F401 - both register what they define

    return _EVERY


def make_method(name: str, settings: dict[str, Any]) -> Method:
    """Return the method called ``name`` with ``settings``; wrong ones raise ``UserError`` in a sentence."""
    return every_method()[name].parse(settings, name)
