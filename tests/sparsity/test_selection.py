import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from backend.sparsity.selection import kept_count, row_counts, top_k_mask

# Few distinct values, so that ties are the rule; negative ones too, since attributions are signed.
SCORES = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 17)),
    elements=st.sampled_from([-2.0, -0.0, 0.0, 0.5, 1.0, 1e30]),
)


def reference_mask(scores: np.ndarray, k: int) -> np.ndarray:
    """Slow and obvious: sort by falling score, then by rising index; keep the first k."""
    mask = np.zeros(scores.shape, dtype=bool)
    for row, values in enumerate(scores):
        order = sorted(range(len(values)), key=lambda i: (-values[i], i))
        mask[row, order[:k]] = True
    return mask


@given(SCORES, st.integers(1, 20))
def test_the_k_largest_are_kept_and_ties_go_to_the_lower_index(scores, k):
    got = top_k_mask(torch.from_numpy(scores), k)
    assert (got.numpy() == reference_mask(scores, k)).all()


@given(SCORES, st.integers(1, 16))
def test_masks_of_one_score_nest_as_k_grows(scores, k):
    smaller = top_k_mask(torch.from_numpy(scores), k)
    larger = top_k_mask(torch.from_numpy(scores), k + 1)
    assert not (smaller & ~larger).any()


def test_selection_is_per_token_not_over_the_batch():
    scores = torch.tensor([[[9.0, 8.0, 7.0, 6.0], [0.1, 0.4, 0.2, 0.3]]])
    assert row_counts(top_k_mask(scores, 2)).tolist() == [[2, 2]]


def test_half_precision_scores_are_compared_in_fp32():
    scores = torch.tensor([[1.0, 1.0078125, 1.0]], dtype=torch.bfloat16)
    assert top_k_mask(scores, 2).tolist() == [[True, True, False]]


def test_numpys_partition_chooses_what_torchs_own_top_k_would():
    scores = torch.randn(5, 33, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.topk(7, dim=-1).indices, True)
    assert torch.equal(top_k_mask(scores, 7), expected)


def test_kept_count_is_at_least_one_and_at_most_all():
    assert [kept_count(keep, 10) for keep in (0.001, 0.25, 0.5, 1.0)] == [1, 2, 5, 10]
