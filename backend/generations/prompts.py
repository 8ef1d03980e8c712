"""The prompts of a request as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.evaluation.texts import Text
from backend.generations.pieces import decoded
from backend.generations.request import GenerationRequest

if TYPE_CHECKING:
    from backend.experiments.laboratory import Laboratory


@dataclass(frozen=True)
class Prompt:
    """One prompt.

    Attributes:
        text: What was asked.
        ids: Its tokens as the model reads them, template and start token included.
        read_as: The same as text.
    """

    text: str
    ids: list[int]
    read_as: str


def prompts_of(request: GenerationRequest, laboratory: Laboratory, tokenizer: Any) -> list[Prompt]:
    """Return the prompts of a request.

    Raises:
        UserError: The model has no chat template, a prompt has no tokens, or the text is too short.
    """
    if request.text is None:
        return [_prompt(tokenizer, text, request.style) for text in request.prompts]
    pieces = cut_pieces(laboratory.text(request.text), tokenizer, request.pieces, request.piece_tokens)
    return [_prompt(tokenizer, piece, request.style) for piece in pieces]


def cut_pieces(text: Text, tokenizer: Any, pieces: int, tokens: int) -> list[str]:
    """Return pieces of a text, spread evenly over it.

    Raises:
        UserError: It has too few tokens.
    """
    ids = tokenizer(text.content, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < pieces * tokens:
        raise UserError(
            f"{text.name} has {len(ids):,} tokens, but {pieces} prompts of {tokens} need "
            f"{pieces * tokens:,}; ask for fewer or shorter ones."
        )
    starts = [place * (len(ids) - tokens) // max(1, pieces - 1) for place in range(pieces)]
    return [decoded(tokenizer, ids[start : start + tokens]) for start in starts]


def check_room(prompt: Prompt, max_tokens: int, limit: int | None) -> None:
    """Refuse a prompt that does not fit into the model's context with the text that shall follow.

    Raises:
        UserError: It does not.
    """
    if limit is not None and len(prompt.ids) + max_tokens > limit:
        raise UserError(
            f"The prompt has {len(prompt.ids):,} tokens and the text may have {max_tokens:,}, but the "
            f"model's context holds {limit:,}; shorten the prompt or the text."
        )


def _prompt(tokenizer: Any, text: str, style: str) -> Prompt:
    if style == "raw":
        ids = list(tokenizer(text, verbose=False)["input_ids"])
    elif not getattr(tokenizer, "chat_template", None):
        raise UserError("The model has no chat template; choose the raw prompt.")
    else:
        message = [{"role": "user", "content": text}]
        said = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)
        ids = list(said["input_ids"])
    if not ids:
        raise UserError("The prompt has no tokens; write what the model is to go on from.")
    return Prompt(text, ids, decoded(tokenizer, ids))
