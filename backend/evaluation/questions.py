"""Questions of a data set, and how they are put to a model."""

from __future__ import annotations

import csv
import io
from typing import Any, Literal

from backend.errors import UserError
from backend.evaluation.texts import Text

PromptStyle = Literal["chat", "instruct"]
COLUMN = "Question"


def read_questions(text: Text, count: int) -> list[str]:
    """Return ``count`` questions spread evenly over a data set: every category of TruthfulQA comes up.

    Args:
        text: A CSV file with a column ``Question``.
        count: How many.

    Raises:
        UserError: It has no such column, or too few questions.
    """
    rows = csv.DictReader(io.StringIO(text.content.removeprefix("\ufeff")))
    if COLUMN not in (rows.fieldnames or ()):
        raise UserError(f"{text.name} has no column '{COLUMN}'; questions are read from a CSV file with one.")
    every = [str(row[COLUMN]).strip() for row in rows if row[COLUMN]]
    if len(every) < count:
        raise UserError(
            f"{text.name} has {len(every)} questions, but {count} were asked for; lower the number."
        )
    return [every[place * len(every) // count] for place in range(count)]


def prompt_ids(tokenizer: Any, question: str, style: PromptStyle) -> list[int]:
    """Return a question as the model reads it.

    Args:
        tokenizer: A Hugging Face tokenizer.
        question: The question.
        style: ``chat``: the model's own chat template; ``instruct``: ``Instruct: {q}`` and ``Output:``, the
            paper's.

    Raises:
        UserError: The model has no chat template.
    """
    if style == "instruct":
        ids: list[int] = tokenizer(f"Instruct: {question}\nOutput:", verbose=False)["input_ids"]
        return ids
    if not getattr(tokenizer, "chat_template", None):
        raise UserError("The model has no chat template; ask its questions with prompt=instruct.")
    said = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_dict=True
    )
    return list(said["input_ids"])
