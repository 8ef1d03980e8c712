"""Drawing tokens, pieces of text, and scores against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.generations.pieces import Pieces
from backend.generations.sampling import Sampler
from backend.generations.scoring import compare
from tests.models_tiny import tiny_tokenizer


def nucleus(p: np.ndarray, top_p: float) -> np.ndarray:
    """Keep the most likely tokens until they hold the share, one by one."""
    kept = np.zeros_like(p)
    held = 0.0
    for token in np.argsort(-p, kind="stable"):
        if held >= top_p:
            break
        kept[token] = p[token]
        held += p[token]
    return kept / kept.sum()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.6), (2.0, 0.3)])
def test_draws_follow_the_distribution(temperature: float, top_p: float) -> None:
    logits = torch.tensor([0.3, 2.0, -1.0, 1.2, 0.0])
    draws = 4_000
    sampler = Sampler(temperature, top_p, seed=3, places=draws)
    found = np.bincount([sampler(logits, place) for place in range(draws)], minlength=5) / draws
    p = np.exp(logits.double().numpy() / temperature)
    wanted = nucleus(p / p.sum(), top_p)
    assert np.abs(found - wanted).max() < 0.03
    assert (found[wanted == 0] == 0).all()


def test_temperature_0_is_greedy_whatever_the_seed() -> None:
    logits = torch.tensor([0.0, 1.0, 3.0, 2.0])
    assert {Sampler(0, 1, seed, 4)(logits, 2) for seed in range(5)} == {2}


def test_sides_draw_with_the_same_numbers() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(0))
    first, second = (Sampler(1.0, 0.9, 7, 40) for _ in range(2))
    assert [first(logits, n) for n in range(40)] == [second(logits, n) for n in range(40)]
    assert len({first(logits, n) for n in range(40)}) > 3
    assert [Sampler(1.0, 0.9, 8, 40)(logits, n) for n in range(40)] != [first(logits, n) for n in range(40)]


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8, as byte-level ones fall back to."""

    def decode(self, ids: list[int], **_: object) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_pieces_make_up_the_text_and_no_half_letter_is_shown(text: str) -> None:
    tokens = list(text.encode())
    pieces = Pieces(Bytes(), [65, 66])
    found = [pieces.add(token) for token in tokens]
    assert "".join(found) == text
    letters = iter(found)
    for letter in text:
        size = len(letter.encode())
        assert [next(letters) for _ in range(size)] == [""] * (size - 1) + [letter]


def test_scores_are_those_of_a_loop_over_the_vocabulary() -> None:
    generator = torch.Generator().manual_seed(1)
    dense, side = (torch.randn(3, 128, generator=generator) for _ in range(2))
    tokens = [5, 127, int(dense[2].argmax())]
    for place, score in enumerate(compare(dense, side, tokens, tiny_tokenizer())):
        p = torch.exp(dense[place].double()) / torch.exp(dense[place].double()).sum()
        q = torch.exp(side[place].double()) / torch.exp(side[place].double()).sum()
        assert score.kl == pytest.approx(sum(float(a * (a / b).log()) for a, b in zip(p, q, strict=True)))
        assert score.dense_logprob == pytest.approx(float(p[tokens[place]].log()))
        assert score.dense_rank == 1 + sum(float(each) > float(p[tokens[place]]) for each in p)
        assert [logprob for _, logprob in score.top] == pytest.approx(
            sorted((float(each.log()) for each in p), reverse=True)[:5], abs=1e-4
        )
    assert score.dense_rank == 1


def test_a_side_like_dense_has_no_kl() -> None:
    logits = torch.full((1, 128), -torch.inf)
    logits[0, 3] = 0.0
    (score,) = compare(logits, logits, [3], tiny_tokenizer())
    assert (score.kl, score.dense_rank) == (0.0, 1)
