"""A sweep: what to run, as a validated YAML file or the same from a page.

name: dip-density
model: smollm2-135m              # or models: [...]
evaluation: {text: wikitext2, tokens: 16384, window: 1024}
policies:
  - method: dense
  - method: dip
    density: [0.1, 0.3, 0.5]     # a list is one cell a value; several lists make their product
  - method: [gate_pruning, up_pruning]
    keep: [0.25, 0.5]
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from backend.errors import UserError
from backend.experiments.evaluations import Evaluation, FidelityEvaluation, make_evaluation
from backend.methods import Method, make_method
from backend.settings import Settings

MAX_CELLS = 10_000


@dataclass(frozen=True)
class Plan:
    """One cell before its model and text are known by their hashes."""

    model: str
    policy: Method
    evaluation: Evaluation


class Sweep(Settings):
    """What a sweep file says."""

    name: str = Field(description="A short name: letters, digits, dashes.", max_length=60)
    model: str | None = Field(None, description="One model: a catalog name, hub id or path.")
    models: tuple[str, ...] = Field((), description="Several models.")
    evaluation: SerializeAsAny[Evaluation] = Field(
        default_factory=FidelityEvaluation, description="What is evaluated."
    )
    policies: tuple[dict[str, Any], ...] = Field(
        description="Methods with their settings; a list is swept.", min_length=1
    )

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("must be letters, digits, dashes, dots and underscores")
        return name

    @field_validator("evaluation", mode="before")
    @classmethod
    def _evaluation_in_a_sentence(cls, value: Any) -> Any:
        return make_evaluation(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _one_or_more_models(self) -> Self:
        if (self.model is None) == (not self.models):
            raise ValueError("give either model or models")
        return self

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read and check a sweep file.

        Raises:
            UserError: It cannot be read, is no YAML mapping, or something in it is wrong.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise UserError(f"The sweep file {path} cannot be read ({error.strerror}).") from error
        except UnicodeDecodeError as error:
            raise UserError(f"The sweep file {path} is not UTF-8 text.") from error
        return cls.from_text(text)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Check the text of a sweep file.

        Raises:
            UserError: It is no YAML mapping, or something in it is wrong.
        """
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            where = getattr(error, "problem_mark", None)
            line = f" (line {where.line + 1})" if where else ""
            raise UserError(f"The sweep file is no valid YAML{line}.") from error
        if not isinstance(content, dict):
            raise UserError("The sweep file must be a mapping with name, model, evaluation and policies.")
        sweep = cls.parse(content, "sweep file")
        sweep.plans()
        return sweep

    def plans(self) -> list[Plan]:
        """Return the cells, in order, each once.

        Raises:
            UserError: A method or setting is wrong, or there are more than 10,000 cells.
        """
        policies = [policy for entry in self.policies for policy in _expand(entry)]
        models = self.models or (str(self.model),)
        if len(models) * len(policies) > MAX_CELLS:
            raise UserError(
                f"The sweep has {len(models) * len(policies):,} cells; at most {MAX_CELLS:,} are run."
            )
        for policy in policies:
            self.evaluation.admit(policy)
        unique = {(model, policy.name, policy): None for model in models for policy in policies}
        return [Plan(model, policy, self.evaluation) for model, _, policy in unique]


def one_policy(
    name: str, model: str, policy: str, settings: dict[str, Any], evaluation: dict[str, Any]
) -> Sweep:
    """Return the sweep of a single cell; lists among the settings are values per layer, not swept."""
    entry = _policy_entry(policy, settings)
    return Sweep.parse({"name": name, "model": model, "evaluation": evaluation, "policies": [entry]}, name)


def point_beside_dense(
    model: str, policy: str, settings: dict[str, Any], evaluation: dict[str, Any]
) -> Sweep:
    """Return the sweep of a point that a page asks for: the dense model and one policy."""
    policies = [{"method": "dense"}, _policy_entry(policy, settings)]
    content = {"name": "point", "model": model, "evaluation": evaluation, "policies": policies}
    return Sweep.parse(content, "point")


def _policy_entry(policy: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a sweep's entry of one policy: a list among the settings is one value per layer, not swept."""
    return {"method": policy, **{key: [value] for key, value in settings.items()}}


def _expand(entry: dict[str, Any]) -> list[Method]:
    """Return one policy for each combination of an entry's listed values."""
    if "method" not in entry:
        raise UserError(f"A policy of the sweep has no 'method' (it says {entry}).")
    axes = {key: value if isinstance(value, list | tuple) else [value] for key, value in entry.items()}
    combined = (dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values()))
    return [make_method(str(settings.pop("method")), settings) for settings in combined]
