import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import UserError
from backend.evaluation.texts import Text
from backend.evaluation.windows import cut_windows


class Words:
    """A tokenizer of numbered words; ``bos`` is put before a text as Llama's tokenizer does."""

    def __init__(self, bos=None):
        self.bos_token_id = bos

    def __call__(self, text, add_special_tokens=True, verbose=True):
        ids = [int(word) for word in text.split() if word.isdigit()]
        return {"input_ids": ([self.bos_token_id] if add_special_tokens and self.bos_token_id else []) + ids}


def text_of(count):
    return Text.of("numbers", " ".join(str(100 + i) for i in range(count)).encode())


def test_windows_follow_each_other_and_their_first_token_is_not_scored():
    windows = cut_windows(text_of(12), Words(), windows=3, window=4)
    assert windows.ids.tolist() == [[100, 101, 102, 103], [104, 105, 106, 107], [108, 109, 110, 111]]
    assert windows.first_scored == (1, 1, 1)
    assert windows.scored_tokens == 9


def test_a_tokenizer_that_adds_bos_gets_it_in_every_window_and_every_text_token_is_scored():
    windows = cut_windows(text_of(6), Words(bos=1), windows=2, window=4)
    assert windows.ids.tolist() == [[1, 100, 101, 102], [1, 103, 104, 105]]
    assert windows.scored_tokens == 6


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 5), st.sampled_from([None, 1]))
def test_with_a_stride_no_token_is_scored_twice(window, stride, count, bos):
    stride = min(stride, window)
    windows = cut_windows(text_of(100), Words(bos), count, window, stride)
    scored = [
        token
        for row, first in zip(windows.ids.tolist(), windows.first_scored, strict=True)
        for token in row[first:]
    ]
    assert len(set(scored)) == len(scored) == windows.scored_tokens
    assert set(scored) == set(range(min(scored), max(scored) + 1)) or stride == window


def test_a_short_text_gets_a_sentence():
    with pytest.raises(UserError, match="numbers has 5 tokens, but 2 windows of 4 need 8"):
        cut_windows(text_of(5), Words(), 2, 4)
