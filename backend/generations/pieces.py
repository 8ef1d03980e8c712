"""From tokens to pieces of text that make up the text, though one letter may take several tokens."""

from __future__ import annotations

from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class Pieces:
    """Turns a growing list of tokens into text, piece by piece.

    A token that only begins a letter (bytes of UTF-8) has an empty piece; the one that ends it has it all.

    Args:
        tokenizer: A Hugging Face tokenizer.
        before: The prompt's tokens: some tokenizers drop the space of a first token.
    """

    def __init__(self, tokenizer: Any, before: list[int]) -> None:
        self._tokenizer = tokenizer
        self._ids = before[-8:]
        self._open = 0  # tokens at the end that have no text yet
        self._said = self._text(self._ids)

    def add(self, token: int) -> str:
        """Return the text that one more token adds."""
        self._ids.append(token)
        text = self._text(self._ids)
        if text.endswith(UNFINISHED) and self._open < 3:  # no letter takes more than four bytes
            self._open += 1
            return ""
        piece = text[len(self._said) :]
        self._open = 0
        self._ids = self._ids[-8:]
        self._said = self._text(self._ids)
        return piece

    def _text(self, ids: list[int]) -> str:
        return decoded(self._tokenizer, ids)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    """Return tokens as text, special ones written out, spaces as they are."""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
