"""Cuts an MLP's neurons into a shared expert and N equal routed ones that fire together.

The energy of neuron i at token t is ``a_i² = h_i² ‖W_d[:, i]‖²`` as a share of the token's total: how much of
the MLP's output it carries. The neurons with the most energy on average are shared; the rest are clustered by
co-activation, with balanced k-means over the tokens at which they are among the token's most active.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backend.models.derived_moe.settings import MoEShape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_ACTIVE_SHARE = 0.25  # of a token's neurons count as firing
_ROUNDS = 5


def energies(gated: Tensor, down_norms: Tensor) -> Tensor:
    """Return each neuron's share of the token's energy: ``a_i² / Σ_j a_j²``.

    Args:
        gated: ``act(W_g x) ⊙ (W_u x)``. # [T, n]
        down_norms: ``‖W_d[:, i]‖``. # [n]
    """
    squared = (gated * down_norms).square()
    shares: Tensor = squared / squared.sum(dim=-1, keepdim=True).clamp_min(1e-30)
    return shares


def expert_energies(ordered: Tensor, shape: MoEShape) -> Tensor:
    """Return the energy of each routed expert, neurons being in the groups' order. # [T, n] → [T, N]"""
    total: Tensor = ordered[:, shape.shared :].unflatten(1, (shape.experts, -1)).sum(dim=-1)
    return total


def oracle_choice(ordered: Tensor, shape: MoEShape) -> Tensor:
    """Return 1 for the K richest experts, neurons being in the groups' order. # [T, n] → [T, N]"""
    import torch

    of_experts = expert_energies(ordered, shape)
    return torch.zeros_like(of_experts).scatter_(1, of_experts.topk(shape.top_k, dim=1).indices, 1.0)


def captured_share(ordered: Tensor, shape: MoEShape, chosen: Tensor | None = None) -> float:
    """Return the share of all energy that the shared expert and the chosen experts carry, 0 to 1.

    Args:
        ordered: Energies, neurons in the groups' order. # [T, n]
        shape: Sizes.
        chosen: 1 for the chosen experts; by default the oracle's. # [T, N]
    """
    chosen = oracle_choice(ordered, shape) if chosen is None else chosen
    captured = ordered[:, : shape.shared].sum() + (expert_energies(ordered, shape) * chosen).sum()
    return float(captured / ordered.sum())


def group_neurons(
    energy: Tensor, shape: MoEShape, seed: int = 0, clustered: bool = True
) -> NDArray[np.int64]:
    """Return the neurons in the order shared expert, expert 0, expert 1, …: a permutation. # [n]

    Args:
        energy: From :func:`energies`, neurons in the model's order. # [T, n]
        shape: Sizes.
        seed: Of the first centres.
        clustered: Cluster the routed neurons; otherwise they are cut as they lie, the control.
    """
    size = shape.expert_size(energy.shape[1])
    by_usage = np.argsort(-energy.mean(dim=0).numpy(), kind="stable")
    shared, rest = by_usage[: shape.shared], np.sort(by_usage[shape.shared :])
    if not clustered:
        return np.concatenate([shared, rest])
    threshold = energy.quantile(1 - _ACTIVE_SHARE, dim=1, keepdim=True)
    group = balanced_kmeans((energy > threshold).float()[:, rest].T.numpy(), shape.experts, size, seed)
    return np.concatenate([shared, rest[np.argsort(group, kind="stable")]])


def balanced_kmeans(points: NDArray[np.float32], groups: int, size: int, seed: int) -> NDArray[np.int64]:
    """Return each point's group by spherical k-means in which every group has ``size`` points. # [p]

    Args:
        points: # [p, T] with p = groups · size.
        groups: Number of groups.
        size: Points of each.
        seed: Of the first centres.
    """
    from scipy.optimize import linear_sum_assignment

    points = _normalised(points)
    centres = points[np.random.default_rng(seed).choice(len(points), groups, replace=False)]
    places = np.repeat(np.arange(groups), size)
    group = places
    for _ in range(_ROUNDS):
        cosine = points @ centres.T
        group = places[linear_sum_assignment(cosine[:, places], maximize=True)[1]]
        centres = _normalised(np.stack([points[group == each].sum(axis=0) for each in range(groups)]))
    return group


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    normalised: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return normalised
