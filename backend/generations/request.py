"""What a generation asks for: prompts, a model, policies beside the dense model, and how tokens are drawn."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from backend.decoding.refusal import refuse_prefill
from backend.experiments.evaluations.kinds import Dtype
from backend.models.catalog import DEFAULT_MODEL
from backend.settings import Settings, setting
from backend.sparsity import Policy, make_policy

DENSE = 0
"""The dense side's number; the policies' follow it."""
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

    def plans(self) -> list[Policy]:
        """Return the sides' policies, dense first.

        Raises:
            UserError: A policy or one of its settings is wrong, or it cannot read the prompt this way.
        """
        sides = [make_policy("dense", {})]
        for said in self.policies:
            settings = dict(said)
            sides.append(make_policy(str(settings.pop("method", "")), settings))
        for policy in sides:
            refuse_prefill(policy, self.prefill)
        return sides


def _refuse_surrogates(number: int, prompt: str) -> None:
    """Refuse a prompt with half a character: JSON can say it, but no tokenizer, file or table can hold it."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"prompt {number} is no text at character {error.start + 1} (an unpaired surrogate, as bytes "
            "that are not UTF-8 leave behind); give it as UTF-8"
        ) from error


def policy_json(policy: Policy) -> dict[str, Any]:
    """Return a policy as a request names it."""
    return {"method": policy.name, **policy.canonical()}
