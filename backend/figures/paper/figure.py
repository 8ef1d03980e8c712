"""A figure for a paper: panels, settings, and where the numbers came from. Survives JSON unchanged."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError

from backend.errors import UserError
from backend.figures.paper.settings import PaperSettings
from backend.figures.record import Record
from backend.figures.spec import FigureSpec
from backend.figures.tables import Table

FORMAT: Final = "sparsity-lens-figure"
MOST_PANELS = 24
MOST_BYTES = 8_000_000
"""Size of a figure.json; a trade-off of every seed point takes about 40 kB."""


class Panel(Record):
    """One panel.

    Attributes:
        spec: What it shows.
        title: Its heading beside the letter; "" for the letter alone.
    """

    spec: FigureSpec
    title: str = ""


class RunRecord(Record):
    """Where a run's numbers came from.

    Attributes:
        run: Its id.
        commit: Git commit of the program.
        packages: Versions of the packages that matter.
        python: Version of Python.
        device: What it ran on ("cpu").
        machine: The machine: processor, cores, memory.
        threads: CPU threads.
        dtype: Precision.
        seeds: Seeds by name.
    """

    run: str
    commit: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    python: str = ""
    device: str = ""
    machine: dict[str, Any] = Field(default_factory=dict)
    threads: int | None = None
    dtype: str = ""
    seeds: dict[str, int | None] = Field(default_factory=dict)


class PaperFigure(Record):
    """A figure as it is saved, reopened, exported and imported.

    Attributes:
        format: Tells the file from others.
        version: Of the format.
        title: What it is; the files are named after it.
        caption: For the paper; by default the panels' notes.
        panels: The panels, in reading order.
        settings: How it looks.
        labels: Other names on paper for series of the legend, by their own.
        table: A table that goes with it; None for the panels' data.
        runs: The runs that measured its numbers.
    """

    format: Literal["sparsity-lens-figure"] = FORMAT
    version: Literal[1] = 1
    title: str = Field(min_length=1, max_length=200)
    caption: str = ""
    panels: tuple[Panel, ...] = Field(min_length=1, max_length=MOST_PANELS)
    settings: PaperSettings = PaperSettings()
    labels: dict[str, str] = Field(default_factory=dict)
    table: Table | None = None
    runs: tuple[RunRecord, ...] = ()

    @classmethod
    def of(cls, *specs: FigureSpec, title: str = "", settings: PaperSettings | None = None) -> Self:
        """Return a figure of specs as a page has them, one panel each.

        Args:
            *specs: One or more.
            title: By default the first spec's.
            settings: By default the default ones.
        """
        return cls(
            title=title or specs[0].title,
            panels=tuple(Panel(spec=spec, title=spec.title) for spec in specs),
            settings=settings or PaperSettings(),
        )

    def with_panels(self, *specs: FigureSpec) -> Self:
        """Return the figure with further panels after its own; its runs are to be looked up again."""
        more = tuple(Panel(spec=spec, title=spec.title) for spec in specs)
        return self.changed(panels=(*self.panels, *more))

    def changed(self, **values: Any) -> Self:
        """Return the figure with other values, checked.

        Raises:
            UserError: A value is wrong (too many panels).
        """
        try:
            return type(self).model_validate(
                {name: getattr(self, name) for name in type(self).model_fields} | values
            )
        except ValidationError as error:
            raise UserError(f"This figure cannot be made: {_first(error)}.") from error

    @property
    def id(self) -> str:
        """Names the figure by its content: 16 hexadecimal digits."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def stem(self) -> str:
        """The name of its files, without ending."""
        words = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        return words[:60].strip("-") or "figure"

    @property
    def notes(self) -> str:
        """What a reader has to know: the caption, or each panel's note once."""
        said = dict.fromkeys(panel.spec.note for panel in self.panels if panel.spec.note)
        return self.caption or " ".join(said)

    def to_json(self) -> bytes:
        """Return the figure as ``figure.json``."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Return the figure of a ``figure.json``, which may come from elsewhere.

        Raises:
            UserError: It is too large, no JSON, or no figure.
        """
        if len(content) > MOST_BYTES:
            raise UserError(
                f"This figure.json has {len(content) / 1e6:.1f} MB; at most {MOST_BYTES / 1e6:g} MB are read."
            )
        try:
            said = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise UserError(
                "This file is no JSON; a figure.json from a bundle or a saved figure is."
            ) from error
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            raise UserError("This JSON is no figure of Sparsity Lens; the figure.json of a bundle is one.")
        if said.get("version") != 1:
            raise UserError(
                f"This figure has format version {said.get('version')!r}; this program reads version 1."
            )
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise UserError(f"This figure.json cannot be used: {_first(error)}.") from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{where}: {message}" if where else message
