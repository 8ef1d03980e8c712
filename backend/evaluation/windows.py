"""Windows: fixed-length pieces of a tokenised text, and which of their tokens are scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.evaluation.texts import Text

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Windows of W tokens.

    Attributes:
        ids: Token ids, one window a row. # [n, W]
        first_scored: Per window, the position of the first token that is scored (≥ 1).
        prompt: First tokens of every window that run dense.
    """

    ids: Tensor
    first_scored: tuple[int, ...]
    prompt: int = 0

    def after(self, prompt: int) -> Windows:
        """Return the windows with a dense prompt: only what sparse tokens predict is scored."""
        first = tuple(max(each, prompt + 1) if prompt else each for each in self.first_scored)
        return replace(self, first_scored=first, prompt=prompt)

    def __len__(self) -> int:
        """Return n, the number of windows."""
        return int(self.ids.shape[0])

    @property
    def scored_tokens(self) -> int:
        """Number of tokens that are scored, over all windows."""
        return sum(int(self.ids.shape[1]) - first for first in self.first_scored)


def cut_windows(text: Text, tokenizer: Any, windows: int, window: int, stride: int | None = None) -> Windows:
    """Tokenise a text and cut it into windows.

    No BOS is added unless the tokenizer adds one to a text; then each window starts with it, as the
    model was trained to see. The first token of a window is never scored; with a stride below the
    window's length, only the last ``stride`` tokens of later windows are.

    Args:
        text: The text.
        tokenizer: A Hugging Face tokenizer.
        windows: Number of windows n.
        window: Tokens of one window, W.
        stride: Text tokens between the starts of two windows; by default, what a window holds of the text.

    Raises:
        UserError: The text has too few tokens.
    """
    import torch

    ids = tokenizer(text.content, add_special_tokens=False, verbose=False)["input_ids"]
    bos = _bos(tokenizer)
    held = window - len(bos)
    step = min(stride or held, held)
    needed = held + (windows - 1) * step
    if len(ids) < needed:
        raise UserError(
            f"{text.name} has {len(ids):,} tokens, but {windows} windows of {window} need {needed:,}; "
            "lower the number of tokens or take a longer text."
        )
    rows = [bos + ids[start : start + held] for start in range(0, windows * step, step)]
    first_scored = tuple(1 if row == 0 else max(1, window - step) for row in range(windows))
    return Windows(torch.tensor(rows, dtype=torch.long), first_scored)


def last_windows(text: Text, tokenizer: Any, windows: int, window: int) -> Windows:
    """Return the last windows of a text, which an evaluation, cut from its start, reaches last.

    Args:
        text: The text.
        tokenizer: A Hugging Face tokenizer.
        windows: Number of windows n, at most; of a short text as many as it holds.
        window: Tokens of one window, W.

    Raises:
        UserError: The text holds none.
    """
    import torch

    ids = tokenizer(text.content, add_special_tokens=False, verbose=False)["input_ids"]
    bos = _bos(tokenizer)
    held = window - len(bos)
    count = min(windows, len(ids) // held)
    if not count:
        raise UserError(
            f"{text.name} has {len(ids):,} tokens, fewer than a window of {window}; take a longer text."
        )
    first = len(ids) - count * held
    rows = [bos + ids[first + row * held : first + (row + 1) * held] for row in range(count)]
    return Windows(torch.tensor(rows, dtype=torch.long), (1,) * count)


def _bos(tokenizer: Any) -> list[int]:
    """Return the BOS the tokenizer puts before a text, if it does."""
    start = tokenizer("a", verbose=False)["input_ids"][:1]
    return start if tokenizer.bos_token_id is not None and start == [tokenizer.bos_token_id] else []
