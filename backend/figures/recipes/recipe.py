"""A recipe: what a figure is made of, in a file of YAML or JSON, resolved against stored results."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from backend.errors import UserError
from backend.figures.paper import Panel, PaperFigure, PaperSettings
from backend.figures.paper.figure import FORMAT, MOST_PANELS
from backend.figures.paper.origin import with_runs
from backend.figures.recipes.panels import RECIPES, Stored
from backend.figures.recipes.tables import TableRecipe
from backend.figures.spec import Baseline, FigureSpec
from backend.settings import Settings, setting

_GENERIC = ("kind", "title", "over", "x_range", "y_range", "claims")
_MOST_BYTES = 200_000


class Claim(Settings):
    """A value that a paper claims, drawn as a line."""

    value: float = setting(..., "The value.")
    label: str = setting(..., "What it is.")
    axis: str = setting("y", "The axis whose value it is: x or y.", pattern="^[xy]$")


class PanelFrame(Settings):
    """What a panel of any kind may say."""

    kind: str = setting(..., "The kind of panel.")
    title: str | None = setting(None, "Its heading; by default the figure's own title.")
    over: dict[str, tuple[Any, ...]] = Field(
        default_factory=dict, description="Small multiples: a setting to the values it takes, a panel each."
    )
    x_range: tuple[float, float] | None = setting(None, "Limits of the horizontal axis.")
    y_range: tuple[float, float] | None = setting(None, "Limits of the vertical axis.")
    claims: tuple[Claim, ...] = setting((), "Lines of what a paper claims.")


class FigureRecipe(Settings):
    """A figure as its panels' kinds, filters and settings."""

    title: str = setting(..., "What it is; files are named after it.", min_length=1, max_length=200)
    caption: str = setting("", "For the paper.")
    panels: tuple[dict[str, Any], ...] = setting(
        ..., "The panels: a kind, its settings, and title, over, x_range, y_range, claims.", min_length=1
    )
    settings: dict[str, Any] = Field(default_factory=dict, description="How it looks on paper.")
    labels: dict[str, str] = Field(default_factory=dict, description="Other names for series in the legend.")
    table: dict[str, Any] | None = setting(None, "The table of methods at equal costs that goes with it.")

    def resolve(self, stored: Stored) -> PaperFigure:
        """Return the figure with the numbers that are stored now.

        Raises:
            UserError: A kind, a setting or a filter is wrong, or nothing is stored for it.
        """
        panels = [made for place, said in enumerate(self.panels) for made in _panels(place, said, stored)]
        if len(panels) > MOST_PANELS:
            raise UserError(f"A figure has at most {MOST_PANELS} panels, not {len(panels)}.")
        table = None
        if self.table is not None:
            table = TableRecipe.parse(self.table, "table").table(stored)
        figure = PaperFigure(
            title=self.title,
            caption=self.caption,
            panels=tuple(panels),
            settings=PaperSettings.parse(self.settings, "settings"),
            labels=self.labels,
            table=table,
        )
        return with_runs(figure, stored.store)


def load_figure(path: Path, stored: Stored) -> PaperFigure:
    """Return the figure of a file: a recipe (YAML or JSON), or a figure.json, drawn from its own data.

    Raises:
        UserError: The file cannot be read or used.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"The file {path} cannot be read ({error.strerror}).") from error
    said = _read(path, content)
    if said.get("format") == FORMAT:
        return PaperFigure.from_json(json.dumps(said).encode() if path.suffix != ".json" else content)
    return FigureRecipe.parse(said, path.name).resolve(stored)


def _read(path: Path, content: bytes) -> dict[str, Any]:
    is_json = path.suffix == ".json"
    if not is_json and len(content) > _MOST_BYTES:
        raise UserError(f"{path.name} has {len(content):,} bytes; a recipe has at most {_MOST_BYTES:,}.")
    try:
        said = json.loads(content) if is_json else yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        kind = "JSON" if is_json else "YAML"
        raise UserError(f"{path.name} is no {kind}: {str(error).splitlines()[0]}.") from error
    if not isinstance(said, dict) or not all(isinstance(key, str) for key in said):
        raise UserError(f"{path.name} is no figure: it has to name at least 'title' and 'panels'.")
    return said


def _panels(place: int, said: dict[str, Any], stored: Stored) -> list[Panel]:
    """Return the panels of one entry: one, or one for each combination of values in ``over``."""
    owner = f"panel {place + 1}"
    if "kind" not in said:
        raise UserError(f"{owner} has no kind; known: {', '.join(sorted(RECIPES))}.")
    frame = PanelFrame.parse({key: said[key] for key in _GENERIC if key in said}, owner)
    kind = RECIPES[frame.kind]
    own = {key: value for key, value in said.items() if key not in _GENERIC}
    count = math.prod(len(values) for values in frame.over.values())
    if not 1 <= count <= MOST_PANELS:
        few = (
            "names a setting with no values" if count == 0 else f"makes {count} panels, at most {MOST_PANELS}"
        )
        raise UserError(f"{owner}: 'over' {few}.")
    made = []
    for values in itertools.product(*frame.over.values()):
        changed = dict(zip(frame.over, values, strict=True))
        spec = kind.parse({**own, **changed}, f"{owner} ({frame.kind})").draw(stored)
        told = ", ".join(str(value) for value in values)
        heading = spec.title if frame.title is None else frame.title
        made.append(
            Panel(spec=_framed(spec, frame), title=", ".join(filter(None, (frame.title, told))) or heading)
        )
    return made


def _framed(spec: FigureSpec, frame: PanelFrame) -> FigureSpec:
    if spec.heat is not None and (frame.claims or frame.x_range or frame.y_range):
        raise UserError("A heat map takes no claims, x_range or y_range.")
    for name in ("x", "y"):
        limits = getattr(frame, f"{name}_range")
        if limits is not None:
            log = getattr(spec, name).log
            if limits[0] >= limits[1] or (log and limits[0] <= 0):
                raise UserError(f"{name}_range runs from low to high, above 0 on a logarithmic axis.")
            spec = spec.model_copy(update={name: getattr(spec, name).model_copy(update={"range": limits})})
    claims = tuple(Baseline(**claim.model_dump(), role="claim") for claim in frame.claims)
    return spec.model_copy(update={"baselines": (*spec.baselines, *claims)})
