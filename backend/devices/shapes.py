"""Shapes of models: the few sizes that decide how many bytes a token reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.registry import Registry

_DIP_SHAPES = "arXiv 2412.01380's models; the models' own config.json"

# What a config.json leaves out because the family's class has it as its default. Only what is not the
# general rule (head_dim = d/heads, kv_heads = heads, embeddings not tied) stands here.
_FAMILY_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma2": {"head_dim": 256, "tie_word_embeddings": True},
    "gemma3_text": {
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262_208,
        "tie_word_embeddings": True,
    },
    "qwen3": {"head_dim": 128},
    "cohere": {"tie_word_embeddings": True},
    "cohere2": {"tie_word_embeddings": True},
}
_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder with gated MLPs, in the notation of arXiv 2412.01380.

    Attributes:
        name: What it is called.
        hidden_size: d, width of the residual stream.
        neurons: n, width of the MLP between its projections.
        layers: L.
        heads: h, query heads.
        kv_heads: Key and value heads, heads/kv_heads queries sharing one.
        head_dim: d_h, width of one head; not always d/h (Gemma, Qwen3-0.6B).
        vocabulary: V, rows of the embedding table.
        tied: The embedding table serves as head too, and is stored once.
        source: Where the sizes come from.
    """

    name: str
    hidden_size: int
    neurons: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        for field in ("hidden_size", "neurons", "layers", "heads", "kv_heads", "head_dim", "vocabulary"):
            if getattr(self, field) < 1:
                raise UserError(f"{self.name}: {field} has to be at least 1, not {getattr(self, field)}.")
        if self.heads % self.kv_heads:
            raise UserError(f"{self.name}: {self.heads} heads cannot share {self.kv_heads} key/value heads.")

    @property
    def mlp_weights(self) -> int:
        """Weights of all MLPs: 3·d·n·L."""
        return 3 * self.hidden_size * self.neurons * self.layers

    @property
    def attention_weights(self) -> int:
        """Weights of the q, k, v and output projections: d·h·d_h·(2 + 2g)·L, g = kv_heads/heads."""
        return 2 * self.hidden_size * self.head_dim * (self.heads + self.kv_heads) * self.layers

    @property
    def embedding_weights(self) -> int:
        """Weights of the embedding table, and of the head: V·d each."""
        return self.vocabulary * self.hidden_size

    @classmethod
    def from_config(cls, config: Mapping[str, Any], name: str = "") -> ModelShape:
        """Return the shape of a Hugging Face model from its config.json.

        Args:
            config: The parsed file; of a multimodal model the text part is taken.
            name: What to call it; by default ``_name_or_path`` or the model type.

        Raises:
            UserError: A size is missing, or the model routes among experts.
        """
        text = config.get("text_config")
        inner: Mapping[str, Any] = text if isinstance(text, Mapping) else config
        name = name or str(config.get("_name_or_path") or inner.get("model_type") or "model")
        if any(int(inner.get(key) or 0) > 1 for key in _EXPERT_KEYS):
            raise UserError(
                f"{name} routes among experts; its memory is simulated on the page of mixtures of experts."
            )
        known = {**_FAMILY_DEFAULTS.get(str(inner.get("model_type")), {})}
        if inner is not config and "tie_word_embeddings" in config:
            known["tie_word_embeddings"] = config["tie_word_embeddings"]
        known.update({key: value for key, value in inner.items() if value is not None})
        heads = _size(known, "num_attention_heads", name)
        hidden = _size(known, "hidden_size", name)
        return cls(
            name=name,
            hidden_size=hidden,
            neurons=_size(known, "intermediate_size", name),
            layers=_size(known, "num_hidden_layers", name),
            heads=heads,
            kv_heads=int(known.get("num_key_value_heads", heads)),
            head_dim=int(known.get("head_dim", hidden // heads)),
            vocabulary=_size(known, "vocab_size", name),
            tied=bool(known.get("tie_word_embeddings", False)),
            source="its config.json",
        )


def _size(config: Mapping[str, Any], key: str, name: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"The config of {name} has no usable {key}; it cannot be simulated.")
    return value


SHAPES: Registry[ModelShape] = Registry("model shape")
"""Shapes with a name; any other comes from a config.json."""


def _register() -> None:
    for shape in (
        ModelShape("phi-3-medium", 5120, 17_920, 40, 40, 10, 128, 32_064, source=_DIP_SHAPES),
        ModelShape("phi-3-mini", 3072, 8192, 32, 32, 32, 96, 32_064, source=_DIP_SHAPES),
        ModelShape("llama-3-8b", 4096, 14_336, 32, 32, 8, 128, 128_256, source=_DIP_SHAPES),
        ModelShape("mistral-7b", 4096, 14_336, 32, 32, 8, 128, 32_000, source=_DIP_SHAPES),
        ModelShape("smollm2-135m", 576, 1536, 30, 9, 3, 64, 49_152, True, "its config.json"),
    ):
        SHAPES.add(shape.name, shape)


_register()


def find_shape(named: str | Path) -> ModelShape:
    """Return the shape called ``named``, or that of a model folder or config.json on this machine.

    Raises:
        UserError: There is no such shape or file, or the file cannot be read.
    """
    found = None if str(named) in SHAPES else local_config(named)
    return SHAPES[str(named)] if found is None else ModelShape.from_config(found[0], name=found[1])


def local_config(named: str | Path) -> tuple[dict[str, Any], str] | None:
    """Return a model folder's config.json (or that file) and the folder's name; None without such a file.

    Raises:
        UserError: The file cannot be read.
    """
    path = Path(named).expanduser()
    file = path / "config.json" if path.is_dir() else path
    if not file.is_file():
        return None
    try:
        config = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a config.json that can be read.") from error
    if not isinstance(config, dict):
        raise UserError(f"{file} is not the config.json of a model.")
    return config, file.parent.name
