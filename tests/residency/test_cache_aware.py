"""Cache-aware top-k in one scan, against the slow reference; chunks, threads and γ = 1 change nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.residency.cache_aware import HookCaches, column_capacity, gamma_schedule
from backend.residency.step_kernels import draw
from tests.residency.reference import reference_choice
from tests.residency.strategies import score_matrices

RULES = st.sampled_from(("lru", "lfu", "random"))
SEED = 11


def chosen(scores, k, gamma, capacity, rule="lru", exempt=0, warm_up=False):
    caches = HookCaches(scores.shape[1], capacity, rule, [SEED])
    gammas = gamma_schedule(gamma, 0, len(scores), warm_up=warm_up)
    masks = caches.choose(scores[None], k, gammas, exempt)[0].astype(bool)
    return masks, int(caches.hits[0]), caches


@settings(max_examples=100, deadline=None)
@given(
    scores=score_matrices(),
    k=st.integers(1, 11),
    gamma=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    capacity=st.integers(0, 11),
    rule=RULES,
    exempt=st.integers(0, 3),
    warm_up=st.booleans(),
)
def test_one_scan_equals_the_reference(scores, k, gamma, capacity, rule, exempt, warm_up):
    k = min(k, scores.shape[1])
    masks, hits, _ = chosen(scores, k, gamma, capacity, rule, exempt, warm_up)
    gammas = gamma_schedule(gamma, 0, len(scores), warm_up=warm_up)
    expected, expected_hits = reference_choice(
        scores, k, gammas, capacity, rule, exempt=exempt, draws=lambda t, i: int(draw(SEED, t, i))
    )
    assert (masks == expected).all()
    assert hits == expected_hits
    assert (masks.sum(axis=1) == k).all()


def test_gamma_one_is_plain_top_k_whatever_the_cache():
    scores = np.random.default_rng(0).random((50, 40), np.float32)
    masks, _, _ = chosen(scores, 13, 1.0, 7)
    assert (masks == (scores >= np.sort(scores, axis=1)[:, [-13]])).all()


def test_a_smaller_gamma_hits_more():
    scores = np.random.default_rng(1).random((200, 60), np.float32)
    hits = [chosen(scores, 20, gamma, 30)[1] for gamma in (1.0, 0.7, 0.4, 0.1)]
    assert hits == sorted(hits)
    assert hits[0] < hits[-1]


def test_the_largest_scores_are_exempt_from_the_penalty():
    scores = np.array([[9, 8, 1, 1], [1, 1, 9, 8]], np.float32)
    kept = [chosen(scores, 2, 0.01, 2, exempt=n)[0][1].tolist() for n in (0, 1, 2)]
    assert kept == [[True, True, False, False], [True, False, True, False], [False, False, True, True]]


def test_a_sequence_in_chunks_goes_on_where_it_was():
    scores = np.random.default_rng(2).random((2, 60, 30), np.float32)
    whole = HookCaches(30, 12, "random", [1, 2])
    parts = HookCaches(30, 12, "random", [1, 2])
    at_once = whole.choose(scores, 10, gamma_schedule(0.3, 0, 60, warm_up=True), 1)
    pieces = []
    for first in (0, 1, 2, 30):
        piece = scores[:, first : {0: 1, 1: 2, 2: 30, 30: 60}[first]]
        gammas = gamma_schedule(0.3, parts.tokens, piece.shape[1], warm_up=True)
        pieces.append(parts.choose(piece, 10, gammas, 1))
    assert (np.concatenate(pieces, axis=1) == at_once).all()
    assert parts.hits.tolist() == whole.hits.tolist()
    assert parts.accesses.tolist() == [600, 600]


def test_sequences_and_gammas_side_by_side_do_not_see_each_other():
    scores = np.random.default_rng(3).random((40, 25), np.float32)
    gammas = np.array([[0.1], [0.5], [1.0]], np.float32)
    together = HookCaches(25, 9, "lru", [SEED] * 3)
    masks = together.choose(np.stack([scores] * 3), 8, gammas)
    for row, gamma in enumerate((0.1, 0.5, 1.0)):
        alone, hits, _ = chosen(scores, 8, gamma, 9)
        assert (masks[row].astype(bool) == alone).all()
        assert together.hits[row] == hits


def test_scores_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="do not fit caches"):
        HookCaches(4, 2, "lru", [0]).choose(np.zeros((2, 3, 4), np.float32), 1, np.ones(3, np.float32))


def test_warm_up_begins_with_plain_top_k_and_falls_to_gamma():
    schedule = gamma_schedule(0.2, 0, 200, warm_up=True)
    assert schedule[0] == 1
    assert schedule[4] == pytest.approx(1 - 0.8 * 0.8)
    assert schedule[-1] == pytest.approx(0.2)
    assert (np.diff(schedule) <= 0).all()
    assert gamma_schedule(0.2, 150, 50, warm_up=True).tolist() == schedule[150:].tolist()
    assert gamma_schedule(0, 0, 3, warm_up=True).tolist() == [1, 0, 0]


def test_capacity_is_rounded_down_but_not_by_floating_point():
    assert [column_capacity(share, 100) for share in (0, 0.29, 0.295, 0.58, 1)] == [0, 29, 29, 58, 100]
