"""Hit rates by cache size: measured on a trace, or assumed by a law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from backend.errors import UserError

Floats = NDArray[np.float64]
HitLaw = Literal["uniform", "best", "none"]
LAWS: tuple[HitLaw, ...] = ("uniform", "best", "none")
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class HitCurve:
    """Hit rate of one hook's cache by its size, linear between points.

    Sizes are shares of the hook's entries, so that a curve recorded on one model can stand for a hook of
    another shape.

    Attributes:
        shares: Cache size as a share of the entries, rising from 0 to 1. # [P]
        hit_rates: Share of the entries read that were in the cache. # [P]
    """

    shares: Floats
    hit_rates: Floats

    def __post_init__(self) -> None:
        shares, rates = self.shares, self.hit_rates
        if shares.ndim != 1 or shares.shape != rates.shape or len(shares) < 2:
            raise UserError("A hit curve needs one hit rate a cache size, and at least two sizes.")
        if not np.all(np.isfinite(shares)) or np.any(np.diff(shares) <= 0):
            raise UserError("The cache sizes of a hit curve have to rise.")
        if shares[0] != 0 or shares[-1] != 1:
            raise UserError("The cache sizes of a hit curve have to run from 0 to all entries.")
        if not np.all((rates >= -_ROUNDING) & (rates <= 1 + _ROUNDING)):
            raise UserError("Hit rates have to lie between 0 and 1.")

    @classmethod
    def by_capacity(cls, hit_rates: ArrayLike) -> HitCurve:
        """Return the curve of hit rates at capacities 0, 1, …, N entries. # [N+1]"""
        rates = np.asarray(hit_rates, dtype=np.float64)
        return cls(np.linspace(0, 1, max(rates.size, 1)), rates)

    @classmethod
    def from_misses(cls, misses: ArrayLike, accesses: float) -> HitCurve:
        """Return the curve of miss counts at capacities 0, 1, …, N entries.

        Args:
            misses: Misses at each capacity. # [N+1]
            accesses: Entries read, hits and misses together.
        """
        if not accesses > 0:
            raise UserError("A hit curve needs at least one access.")
        return cls.by_capacity(1 - np.asarray(misses, dtype=np.float64) / accesses)

    @classmethod
    def from_points(cls, shares: Sequence[float], hit_rates: Sequence[float]) -> HitCurve:
        """Return the curve through measured points, such as a stored grid of cache shares.

        An empty cache hits nothing; beyond the largest measured size the hit rate stays as measured there.
        """
        x, y = list(shares), list(hit_rates)
        if len(x) != len(y) or not x:
            raise UserError("A hit curve needs one hit rate a cache size, and at least one.")
        x, y = ([0.0, *x], [0.0, *y]) if x[0] > 0 else (x, y)
        x, y = ([*x, 1.0], [*y, y[-1]]) if x[-1] < 1 else (x, y)
        return cls(np.array(x, dtype=np.float64), np.array(y, dtype=np.float64))

    @classmethod
    def assumed(cls, law: HitLaw, kept_share: float, sequence_tokens: int | None = None) -> HitCurve:
        """Return the curve of a law, for when nothing was recorded.

        * ``uniform``: every entry is as likely as any other for every token, so the hit rate is the cached
          share: what a cache gets without any locality.
        * ``best``: the same entries every token, the cached ones among them: hit rate min(1, C/|m|), the
          bound that no cache passes.
        * ``none``: nothing is ever found.

        Args:
            law: Which.
            kept_share: Share of the entries that a token reads.
            sequence_tokens: Length of a sequence that starts with an empty cache, which must be filled once
                (C more misses a sequence); None for a warm start.
        """
        if not 0 < kept_share <= 1:
            raise UserError(f"The share of entries kept has to lie in (0, 1] (given: {kept_share:g}).")
        if law not in LAWS:
            raise UserError(f"There is no hit law called '{law}'; known: {', '.join(LAWS)}.")
        shares = np.array([0.0, kept_share, 1.0] if kept_share < 1 else [0.0, 1.0])
        filled = np.minimum(shares, kept_share) if law == "best" else shares  # entries ever read from it
        rates = {"uniform": shares, "best": filled / kept_share, "none": np.zeros_like(shares)}[law]
        if sequence_tokens is not None and law != "none":
            rates = rates - filled / (kept_share * sequence_tokens)
        return cls(shares, np.maximum(rates, 0.0))

    @classmethod
    def fixed(cls, hit_rate: float, kept_share: float) -> HitCurve:
        """Return the curve that reaches ``hit_rate`` as soon as the cache is large enough for it.

        For a hit rate measured elsewhere at one cache size; below C = hit_rate·|m| it is C/|m|, since no
        cache hits more entries than it holds.
        """
        if not 0 <= hit_rate <= 1:
            raise UserError(f"A hit rate has to lie between 0 and 1 (given: {hit_rate:g}).")
        if not 0 < kept_share <= 1:
            raise UserError(f"The share of entries kept has to lie in (0, 1] (given: {kept_share:g}).")
        knee = hit_rate * kept_share
        if knee in (0.0, 1.0):
            return cls(np.array([0.0, 1.0]), np.array([0.0, hit_rate]))
        return cls(np.array([0.0, knee, 1.0]), np.array([0.0, hit_rate, hit_rate]))

    def at(self, shares: Floats) -> Floats:
        """Return the hit rates of caches that hold these shares of the entries. # [...] → [...]"""
        return np.interp(shares, self.shares, np.clip(self.hit_rates, 0.0, 1.0))

    @cached_property
    def hull(self) -> tuple[Floats, Floats]:
        """Vertices of the upper concave hull up to the best hit rate: (shares, hit rates). # [V] each

        Between two vertices the curve lies below the hull, so a cache is best cut at a vertex.
        """
        best = int(np.argmax(self.hit_rates))
        kept: list[int] = []
        x, y = self.shares.tolist(), self.hit_rates.tolist()
        for i in range(best + 1):
            while len(kept) > 1:
                a, b = kept[-2], kept[-1]
                if (y[b] - y[a]) * (x[i] - x[b]) > (y[i] - y[b]) * (x[b] - x[a]):
                    break
                kept.pop()
            kept.append(i)
        return self.shares[kept], self.hit_rates[kept]

    @cached_property
    def hull_segments(self) -> tuple[Floats, Floats]:
        """Widths (shares of the entries) and slopes of the hull's segments, slopes falling. # [V−1] each"""
        shares, rates = self.hull
        widths = np.diff(shares)
        # Rounding could let a slope rise by a last digit; sorting relies on it that none does.
        return widths, np.minimum.accumulate(np.diff(rates) / widths)
