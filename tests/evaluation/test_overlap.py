"""Common 13-grams against a slow loop; calibration windows come from a text's end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import UserError
from backend.evaluation.overlap import N, Overlap, overlap
from backend.evaluation.texts import Text
from backend.evaluation.windows import cut_windows, last_windows
from tests.models_tiny import tiny_tokenizer

sequences = st.lists(st.lists(st.sampled_from([1, 2]), max_size=30), max_size=3)


@given(sequences, sequences)
def test_common_runs_are_counted(calibration, evaluation):
    common = whole = 0
    for sequence in evaluation:
        for start in range(len(sequence)):
            run = sequence[start : start + N]
            if len(run) == N:
                whole += 1
                common += any(
                    other[i : i + N] == run for other in calibration for i in range(len(other) - N + 1)
                )
    assert overlap(calibration, evaluation) == Overlap(common, whole)


def test_a_text_has_all_of_itself_and_no_run_goes_over_an_end():
    text = list(range(30))
    assert overlap([text], [text]).share == 1
    assert overlap([text[:12], text[12:]], [text]) == Overlap(6, 18)
    assert overlap([text], [text[:12]]) == Overlap(0, 0)
    assert Overlap(0, 0).share == 0


def test_the_last_windows_are_a_texts_end_in_order():
    text = Text("made up", "".join(chr(ord("a") + i % 26) for i in range(100)), "")
    tokenizer = tiny_tokenizer()
    every = cut_windows(text, tokenizer, 10, 10).ids.tolist()
    assert last_windows(text, tokenizer, 3, 10).ids.tolist() == every[-3:]
    assert last_windows(text, tokenizer, 99, 10).ids.tolist() == every
    with pytest.raises(UserError, match="100 tokens, fewer than a window of 101"):
        last_windows(text, tokenizer, 1, 101)
