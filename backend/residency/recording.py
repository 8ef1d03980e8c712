"""Records the masks of a run, reduced at once to miss curves: raw traces are 130 MB for 16k tokens."""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.residency.eviction import Eviction
from backend.residency.miss_curve import MissCurve, miss_curve_of
from backend.residency.trace import MaskTrace


class CurveRecorder:
    """Watches the engine's masks: ``engine.hidden_states(policy, ids, watch=recorder)``.

    Every call of an MLP must hold whole sequences, each of which starts with empty caches. Only for policies
    that do not look at a cache themselves.

    Args:
        evictions: The rules to make curves for.
        small_caches: Figures for caches smaller than a token's set need the masked values' magnitudes, by
            which columns are loaded; without, they are loaded by rising index there.

    Attributes:
        curves: Summed over sequences, by (layer, site, eviction).
    """

    def __init__(self, evictions: tuple[Eviction, ...] = ("lru",), *, small_caches: bool = True) -> None:
        self.evictions = evictions
        self.small_caches = small_caches
        self.curves: dict[tuple[int, str, Eviction], MissCurve] = {}

    def __call__(self, layer: int, site: str, mask: Any, values: Any) -> None:
        """Take note of one hook's masks and of the values they mask (tensors or arrays). # [B, T, N]"""
        masks = np.asarray(mask.cpu() if hasattr(mask, "cpu") else mask, dtype=bool)
        magnitudes = None
        if self.small_caches:
            found = values.detach().float().cpu() if hasattr(values, "cpu") else values
            magnitudes = np.asarray(found, dtype=np.float32)
        for row in range(len(masks)):
            trace = MaskTrace.from_masks(masks[row], None if magnitudes is None else magnitudes[row])
            for eviction in self.evictions:
                curve = miss_curve_of(trace, eviction)
                key = (layer, site, eviction)
                self.curves[key] = self.curves[key] + curve if key in self.curves else curve
