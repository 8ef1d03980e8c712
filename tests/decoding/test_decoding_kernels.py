"""The kernels against NumPy, and the radix selection against the selection every policy uses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.decoding.kernels.linear import chosen_columns, chosen_rows, rows
from backend.decoding.kernels.memory import read_all
from backend.decoding.kernels.selection import top_k
from backend.models.quantization import quantise_rows
from backend.sparsity.selection import top_k_mask

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def random(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(SHAPES, st.integers(1, 3), st.integers(0, 5), st.booleans(), st.data())
@settings(max_examples=60, deadline=None)
def test_products_of_chosen_rows_and_columns_are_numpys(shape, threads, seed, int8, data):
    n, d = shape
    weight = torch.from_numpy(random(seed, n, d))
    values, scales = quantise_rows(weight) if int8 else (weight, torch.ones(n))
    dense = (values.float() * scales[:, None]).numpy()
    x = random(seed + 1, d)
    keep = st.lists(st.booleans(), min_size=1)
    columns = np.flatnonzero(np.resize(data.draw(keep), d))
    kept_rows = np.flatnonzero(np.resize(data.draw(keep), n))

    out = np.full(n, np.nan, np.float32)
    rows(values.contiguous().numpy(), scales.numpy(), x, out, threads)
    np.testing.assert_allclose(out, dense @ x, rtol=1e-4, atol=1e-4)

    out = np.full(n, np.nan, np.float32)
    chosen_columns(values.t().contiguous().numpy(), scales.numpy(), x, columns, out, threads)
    np.testing.assert_allclose(out, dense[:, columns] @ x[columns], rtol=1e-4, atol=1e-4)

    out = np.full(len(kept_rows), np.nan, np.float32)
    chosen_rows(values.contiguous().numpy(), scales.numpy(), x, kept_rows, out, threads)
    np.testing.assert_allclose(out, (dense @ x)[kept_rows], rtol=1e-4, atol=1e-4)


FEW = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-40, 3e38, 0.5, -2.5])
"""Values that tie, have signs that do not count, are denormal or near the largest."""


@given(st.lists(st.one_of(FEW, st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=300), st.data())
@settings(max_examples=200, deadline=None)
def test_the_radix_selection_keeps_what_the_policies_selection_keeps(values, data):
    scores = np.array(values, np.float32)
    k = data.draw(st.integers(1, len(values)))
    chosen = np.empty(len(values), np.int64)
    top_k(scores, k, chosen, np.zeros(2048, np.int32))
    expected = top_k_mask(torch.from_numpy(scores).abs()[None], k)[0].numpy()
    assert chosen[:k].tolist() == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_reading_memory_reads_all_of_it(threads):
    values = np.arange(1000, dtype=np.float32)
    out = np.zeros(threads, np.float32)
    read_all(values, out, threads)
    assert out.sum() == pytest.approx(values.sum())
