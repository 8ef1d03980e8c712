"""A cell: one model, one policy, one evaluation; and the content-addressed id that names its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from backend.experiments.evaluations import Evaluation
from backend.methods import Method


@dataclass(frozen=True)
class Cell:
    """What one measurement is of, named by everything that decides its result.

    Attributes:
        model: The model's name in the catalog, hub id or path.
        model_sha256: Hash of the weights that run.
        policy: The policy with its settings.
        evaluation: What is evaluated.
        text_sha256: Hash of the whole text that was read.
        machine: The machine that it runs on, if that decides the result; else None.
    """

    model: str
    model_sha256: str
    policy: Method
    evaluation: Evaluation
    text_sha256: str
    machine: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return what decides the result, as plain JSON values."""
        evaluation = {"version": self.evaluation.version, **self.evaluation.canonical()}
        if self.machine is not None:
            evaluation["machine"] = self.machine
        return {
            "evaluation": {**evaluation, "text": self.text_sha256},
            "model_sha256": self.model_sha256,
            "policy": {
                "name": self.policy.name,
                "version": type(self.policy).version,
                "settings": self.policy.canonical(),
            },
        }

    @property
    def id(self) -> str:
        """Return the content-addressed id: 16 hex digits of the identity's sha256."""
        text = json.dumps(self.identity(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def description(self) -> dict[str, Any]:
        """Return the cell as its ``cell_finished`` event describes it."""
        return {
            "model": self.model,
            "model_sha256": self.model_sha256,
            "policy": self.policy.name,
            "policy_version": type(self.policy).version,
            "settings": self.policy.canonical(),
            "text": self.evaluation.text,
            "text_sha256": self.text_sha256,
            "evaluation": {"version": self.evaluation.version, **self.evaluation.canonical()},
        }
