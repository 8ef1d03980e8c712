"""What a generation asks for: prompts, a model, policies beside the dense model, and how tokens are drawn."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from backend.decoding.refusal import refuse_prefill
from backend.errors import UserError
from backend.experiments.evaluations.kinds import Dtype
from backend.methods import Method, make_method
from backend.models.catalog import CATALOG, DEFAULT_MODEL
from backend.settings import Settings, setting
from backend.sparsity import Policy

DENSE = 0
"""The number of the reference side (dense, or a mixture's original routing); the policies' follow it."""
MOST_POLICIES = 3
MOST_PROMPTS = 64
LONGEST = 2_048
MOST_CHARACTERS = 200_000


class GenerationRequest(Settings):
    """One prompt, or a list of them, that the dense model and up to three policies go on from."""

    name: ClassVar[str] = "generation"

    model: str = setting(DEFAULT_MODEL, "A catalog name, hub id or folder.")
    prompts: tuple[str, ...] = setting((), "What the model goes on from, one text each.")
    text: str | None = setting(None, "A named text or file whose pieces are the prompts, in place of them.")
    pieces: int = setting(16, "Prompts cut evenly out of the text.", unit="prompts", ge=1, le=MOST_PROMPTS)
    piece_tokens: int = setting(32, "Length of each piece.", unit="tokens", ge=1, le=4_096)
    style: Literal["chat", "raw"] = setting(
        "chat", "chat: a message in the model's own chat template; raw: the text as it stands."
    )
    policies: tuple[dict[str, Any], ...] = Field(
        (), description="Methods with their settings, at most three."
    )
    max_tokens: int = setting(64, "Longest text.", unit="tokens", ge=1, le=LONGEST)
    temperature: float = setting(0.0, "0 takes the most likely token.", ge=0, le=5)
    top_p: float = setting(1.0, "Draws from the most likely tokens that hold this share.", gt=0, le=1)
    seed: int = setting(0, "Of the draws; every side draws with the same numbers.", ge=0, le=2**32 - 1)
    prefill: Literal["dense", "sparse"] = setting(
        "dense", "How policies read the prompt. Read dense, it is read once for all sides and kept."
    )
    order: Literal["together", "in turn"] = setting(
        "together", "together: a token of each side in turn; in turn: one side after the other."
    )
    forced: bool = setting(True, "Also score each policy on the dense model's text.")
    dtype: Dtype = setting("float32", "Precision of weights and arithmetic.")

    @model_validator(mode="after")
    def _something_to_go_on_from(self) -> Self:
        if bool(self.prompts) == (self.text is not None):
            raise ValueError("give a prompt, or the name of a text to cut prompts from")
        if len(self.prompts) > MOST_PROMPTS:
            raise ValueError(f"a list holds at most {MOST_PROMPTS} prompts, not {len(self.prompts)}")
        if not all(prompt.strip() for prompt in self.prompts):
            raise ValueError("the prompt is empty; write what the model is to go on from")
        for number, prompt in enumerate(self.prompts, start=1):
            _refuse_surrogates(number, prompt)
        longest = max((len(prompt) for prompt in self.prompts), default=0)
        if longest > MOST_CHARACTERS:
            raise ValueError(f"a prompt has at most {MOST_CHARACTERS:,} characters, not {longest:,}")
        if len(self.policies) > MOST_POLICIES:
            raise ValueError(f"at most {MOST_POLICIES} policies stand beside dense, not {len(self.policies)}")
        return self

    @property
    def is_list(self) -> bool:
        """Whether it is a list of prompts, which waits its turn; a single one passes a running sweep."""
        return self.text is not None or len(self.prompts) > 1

    def as_asked(self) -> dict[str, Any]:
        """Return every setting, those at their defaults too: a text is to be made again as it was."""
        return self.canonical()

    def plans(self, mixture: bool | None = None) -> list[Method]:
        """Return the sides' policies, the reference first: dense, or a mixture's original routing.

        Args:
            mixture: Whether the model is a mixture of experts; None before it is loaded, when only the
                catalog's models are known.

        Raises:
            UserError: A policy or one of its settings is wrong, it is none for this model, or it cannot
                read the prompt this way.
        """
        asked = []
        for said in self.policies:
            settings = dict(said)
            asked.append(make_method(str(settings.pop("method", "")), settings))
        known = is_mixture(self.model) if mixture is None else mixture
        if known is None:
            known = bool(asked) and asked[0].kind == "routing"
            _refuse_both_kinds(asked)
        for policy in asked:
            if (policy.kind == "routing") != known:
                raise UserError(_not_for(policy, self.model, known))
        if known and self.prefill == "sparse":
            raise UserError(
                "prefill belongs to mask policies; a routing policy's own setting 'prompt' says whether the "
                "prompt is re-routed ('rerouted' or 'original')."
            )
        for policy in asked:
            if isinstance(policy, Policy):
                refuse_prefill(policy, self.prefill)
        return [make_method("original" if known else "dense", {}), *asked]


def _refuse_surrogates(number: int, prompt: str) -> None:
    """Refuse a prompt with half a character: JSON can say it, but no tokenizer, file or table can hold it."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"prompt {number} is no text at character {error.start + 1} (an unpaired surrogate, as bytes "
            "that are not UTF-8 leave behind); give it as UTF-8"
        ) from error


def is_mixture(model: str) -> bool | None:
    """Tell whether a model of the catalog is a mixture of experts; None for another, not yet loaded."""
    if model not in CATALOG:
        return None
    return CATALOG[model].source.kind == "derived"


def _refuse_both_kinds(policies: list[Method]) -> None:
    first = {policy.kind: policy for policy in reversed(policies)}
    if len(first) > 1:
        raise UserError(
            f"{first['mask'].title} is a mask policy and {first['routing'].title} a routing policy: no model "
            "takes both; choose mask policies for a dense model, routing policies for a mixture of experts."
        )


def _not_for(policy: Method, model: str, mixture: bool) -> str:
    if mixture:
        return (
            f"{policy.title} is a mask policy, but {model} is a mixture of experts; choose routing policies, "
            "such as cache_prior."
        )
    return (
        f"{policy.title} is a routing policy, but {model} is no mixture of experts; choose mask policies, "
        "such as dip."
    )


def policy_json(policy: Method) -> dict[str, Any]:
    """Return a policy as a request names it."""
    return {"method": policy.name, **policy.canonical()}
