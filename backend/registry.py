"""One lazy, generic registry: names to things, with a helpful message for a wrong name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

from backend.errors import UserError

T = TypeVar("T")


def did_you_mean(given: str, known: list[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest known name, or the list of all of them.

    Args:
        given: What was written.
        known: The names that would have been right.
    """
    near = get_close_matches(given.lower(), known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}."


class Registry(Mapping[str, T], Generic[T]):
    """A mapping of names to things of one kind, in the order they were added.

    Args:
        kind: What is registered, in the singular, for messages ("method", "device").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register ``entry`` under ``name``; a name taken by another entry is a programming error."""
        if self._entries.get(name, entry) is not entry:
            raise ValueError(f"two entries are called {name!r} in the registry of {self.kind}s")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        """Return the entry called ``name``; an unknown name raises ``UserError`` with the nearest one."""
        if name not in self._entries:
            raise UserError(f"There is no {self.kind} called '{name}'; {did_you_mean(name, list(self))}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether ``name`` is registered; ``Mapping`` would ask ``__getitem__``, whose error is ours."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order they were added."""
        return iter(self._entries)

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._entries)
