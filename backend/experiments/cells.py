"""A cell: one model, one policy, one evaluation; and the content-addressed id that names its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from backend.settings import Settings, setting
from backend.sparsity import Policy

Dtype = Literal["float32", "bfloat16", "float16"]


class Evaluation(Settings):
    """Perplexity and fidelity to the dense model on windows of a text."""

    version: ClassVar[int] = 1
    """Raised when the same settings give other results, so that stored cells are run again."""

    text: str = setting("wikitext2", "A named text (wikitext2, prose) or the path of a text file.")
    tokens: int = setting(16_384, "Tokens fed: tokens/window windows are evaluated.", unit="tokens", ge=2)
    window: int = setting(1_024, "Tokens of one window; its first token is not scored.", unit="tokens", ge=2)
    stride: int | None = setting(
        None,
        "Distance between the starts of windows; below the window's length, only the last `stride` tokens "
        "of later windows are scored. By default the window's length.",
        unit="tokens",
        ge=1,
    )
    dtype: Dtype = setting("float32", "Precision of weights and arithmetic.")

    @model_validator(mode="after")
    def _consistent(self) -> Evaluation:
        if self.tokens < self.window:
            raise ValueError(f"tokens ({self.tokens}) must hold at least one window ({self.window})")
        if self.stride is not None and self.stride > self.window:
            raise ValueError(f"stride ({self.stride}) must not exceed the window ({self.window})")
        return self

    @property
    def windows(self) -> int:
        """Number of windows: tokens fed over tokens a window."""
        return self.tokens // self.window


@dataclass(frozen=True)
class Cell:
    """What one measurement is of, named by everything that decides its result.

    Attributes:
        model: The model's name in the catalog, hub id or path.
        model_sha256: Hash of the weights that run.
        policy: The policy with its settings.
        evaluation: What is evaluated.
        text_sha256: Hash of the whole text that was read.
    """

    model: str
    model_sha256: str
    policy: Policy
    evaluation: Evaluation
    text_sha256: str

    def identity(self) -> dict[str, Any]:
        """Return what decides the result, as plain JSON values."""
        evaluation = self.evaluation.canonical()
        return {
            "evaluation": {"version": Evaluation.version, **evaluation, "text": self.text_sha256},
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
            "evaluation": {"version": Evaluation.version, **self.evaluation.canonical()},
        }
