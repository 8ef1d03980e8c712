"""Which experts a routing loads, layer by layer, and how evenly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.figures.heat_map import ColourScale, HeatMap
from backend.figures.moe.origin import MEASURED
from backend.figures.spec import Axis, FigureSpec, Provenance
from backend.residency import RoutingRecord


@dataclass(frozen=True, eq=False)
class Balance:
    """How evenly each layer's accesses fall on its experts.

    Attributes:
        entropy: H = −Σ p ln p of the experts' shares, over ln N: 1 is even, 0 a single expert. # [L]
        imbalance: The busiest expert's share times N: 1 is even, N a single expert. # [L]
        unused: Experts that no token used. # [L]
    """

    entropy: NDArray[np.float64]
    imbalance: NDArray[np.float64]
    unused: NDArray[np.int64]


def shares_of(record: RoutingRecord) -> NDArray[np.float64]:
    """Return each expert's share of its layer's accesses; experts a layer lacks have 0. # [L, N]"""
    whole = np.maximum(1, record.traffic.sum(axis=1, keepdims=True))
    return np.asarray(record.traffic / whole, np.float64)


def balance_of(record: RoutingRecord) -> Balance:
    """Return how evenly each layer's accesses fall on its experts."""
    shares, sizes = shares_of(record), np.array(record.experts_by_layer)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(np.where(shares > 0, shares * np.log(shares), 0.0), axis=1)
    return Balance(
        entropy=entropy / np.log(np.maximum(2, sizes)),
        imbalance=shares.max(axis=1) * sizes,
        unused=sizes - (record.traffic > 0).sum(axis=1),
    )


def traffic_map(
    record: RoutingRecord, label: str, *, by_load: bool = False, where: Provenance = MEASURED
) -> FigureSpec:
    """Return the heat map of the experts' shares of their layer's accesses.

    Args:
        record: The routing.
        label: Whose routing it is.
        by_load: In each layer the busiest expert first: columns are ranks, not experts.
        where: Where the numbers came from.
    """
    shares = 100 * shares_of(record)
    if by_load:
        shares = -np.sort(-shares, axis=1)
    values = tuple(
        tuple(float(value) if e < size else None for e, value in enumerate(row))
        for row, size in zip(shares.round(4), record.experts_by_layer, strict=True)
    )
    even = 100 / max(record.experts_by_layer)
    # A few hot experts would leave all others in one colour: the scale ends at the 99.5th percentile.
    high = max(float(np.quantile(shares, 0.995)), 2 * even)
    balance = balance_of(record)
    return FigureSpec(
        title=f"Traffic of experts, {label}",
        x=Axis(label="Expert's rank by load" if by_load else "Expert"),
        y=Axis(label="Layer"),
        heat=HeatMap(
            rows=tuple(str(layer) for layer in record.layers),
            columns=tuple(str(1 + e if by_load else e) for e in range(record.experts)),
            values=values,
            scale=ColourScale(label="Share of the layer's accesses", unit="%", range=(0.0, high)),
        ),
        note=(
            f"{record.tokens:,} tokens, up to {record.experts_per_token} of {record.experts} routed experts "
            f"each; even would be {even:.2g} %. Entropy over ln N: mean {balance.entropy.mean():.3f}, lowest "
            f"{balance.entropy.min():.3f} in layer {record.layers[int(balance.entropy.argmin())]}. Colours "
            f"end at {high:.2g} %."
        ),
        provenance=where,
    )
