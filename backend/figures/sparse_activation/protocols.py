"""The protocols of the sparse-activation page: what is asked of the model, and which methods compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backend.figures.sparse_activation.variants import Role
from backend.registry import Registry

WITHOUT_LABEL: tuple[Role, ...] = ("realisable", "label-free oracle", "control")
ORACLES: tuple[Role, ...] = ("oracle label", "wrong label", "label-free oracle", "control")
OF_ANSWERS = ("bleu", "rouge_l", "token_agreement")
OF_TOKENS = ("kl", "delta_nll")


@dataclass(frozen=True)
class Protocol:
    """One way to put the claim to the test; numbers of two protocols never share a figure.

    Attributes:
        name: Its name in a control and in an address.
        title: What it is, for a figure's title.
        says: One sentence on what is asked.
        form: The evaluation's form of answers; None: windows of a text.
        metrics: What can be shown of it, the first by default.
        roles: Which variants belong to it.
    """

    name: str
    title: str
    says: str
    form: Literal["forced", "free"] | None
    metrics: tuple[str, ...]
    roles: tuple[Role, ...]


PROTOCOLS: Registry[Protocol] = Registry("protocol")
"""Every protocol, by name, in the order of the page's switch."""

for _protocol in (
    Protocol(
        "A forced",
        "answers on the dense context",
        "Greedy answers to questions; prompt and first token are dense, and the context of every later token "
        "is the dense model's answer, so that each is predicted on its own.",
        "forced",
        (*OF_ANSWERS, *OF_TOKENS),
        ORACLES,
    ),
    Protocol(
        "A free-running",
        "answers on the sparse context",
        "The same as in the paper: the sparse model goes on from its own text, with the masks of the dense "
        "run at the same place.",
        "free",
        OF_ANSWERS,
        ORACLES,
    ),
    Protocol(
        "B on text",
        "every token of a text sparse",
        "Every token of a text is sparse, and scored against the text itself.",
        None,
        ("agreement", *OF_TOKENS),
        (*ORACLES, "realisable"),
    ),
    Protocol(
        "C label-free",
        "answers without any label",
        "The answers of “A forced”, by methods that never look at the token that is scored. Those that can "
        "be built stand beside label-free oracles, which cannot.",
        "forced",
        (*OF_ANSWERS, *OF_TOKENS),
        WITHOUT_LABEL,
    ),
):
    PROTOCOLS.add(_protocol.name, _protocol)
