"""Exact per-token top-k: the one selection every policy uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def kept_count(keep: float, size: int) -> int:
    """Return k = max(1, round(keep·size)), the number of entries a share stands for.

    Args:
        keep: Share kept, in (0, 1].
        size: Number of entries there are.
    """
    return min(size, max(1, round(keep * size)))


def top_k_mask(scores: Tensor, k: int) -> Tensor:
    """Return the mask of the k largest scores of each row, ties broken by the lower index.

    Scores are compared in fp32: half-precision magnitudes tie too often. The selection is per token, over
    the last dimension, never over a flattened batch.

    Args:
        scores: # [..., N]
        k: Entries kept a row, 1 ≤ k.

    Returns:
        A boolean mask with exactly min(k, N) True a row. # [..., N]
    """
    import torch

    size = scores.shape[-1]
    if k >= size:
        return torch.ones_like(scores, dtype=torch.bool)
    scores = scores.detach().float()
    threshold = _kth_largest(scores, k)  # [..., 1]
    mask = scores >= threshold
    if int(torch.count_nonzero(mask)) == k * (scores.numel() // size):
        return mask
    above = scores > threshold
    tied = mask & ~above
    room = k - above.sum(-1, keepdim=True)
    return above | (tied & (tied.cumsum(-1) <= room))


def _kth_largest(scores: Tensor, k: int) -> Tensor:
    """Return each row's k-th largest score. # [..., N] → [..., 1]"""
    import numpy as np
    import torch

    if scores.device.type != "cpu":
        return scores.topk(k, dim=-1, sorted=True).values[..., -1:]
    # numpy's partition is vectorised (AVX-512, AVX2): 2 ms for 1024×1536, where torch.topk takes 13.
    at = scores.shape[-1] - k
    return torch.from_numpy(np.partition(scores.numpy(), at, axis=-1)[..., at : at + 1].copy())


def row_counts(mask: Tensor) -> Tensor:
    """Return how many entries each row keeps, as float64. # [..., N] → [...]"""
    import torch

    return mask.view(torch.uint8).sum(-1, dtype=torch.int32).double()
