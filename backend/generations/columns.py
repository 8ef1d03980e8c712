"""What a side brings along for each of its tokens: named values with their unit. Free of torch.

A column is described once a side and stored with it, so that pages and figures need to know no method: a
policy with a cache has hit rates, one that routes will have experts. KL, Δlog p and rank are no columns of a
side: every side has them (:mod:`backend.generations.scoring`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class TokenColumn:
    """A value that each token of a side has, with one value a layer behind it.

    Attributes:
        name: Its name in the store ("mlp_density").
        label: Its name for people.
        unit: Its unit, "" for none.
        better: Which direction is better, None if neither is.
        range: Fixed ends of its colour scale; None to fit the values.
    """

    name: str
    label: str
    unit: str = ""
    better: Literal["higher", "lower"] | None = None
    range: tuple[float, float] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the column as the events state it."""
        return asdict(self)

    @property
    def how(self) -> Literal["measured", "simulated"]:
        """How its values are got; a label says so where they are simulated."""
        return "simulated" if "(simulated" in self.label else "measured"

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> TokenColumn:
        """Return the column that :meth:`as_json` wrote."""
        ends = said.get("range")
        return cls(**{**said, "range": None if ends is None else (float(ends[0]), float(ends[1]))})


DENSITY = TokenColumn("mlp_density", "MLP density", "share of MLP weights", None, (0.0, 1.0))
CHANGED = TokenColumn("routing_change", "Experts changed", "share of experts", None, (0.0, 1.0))
MISSED = "expert_misses"
"""Name of the column of misses, whose label says the cache's size."""
USED = TokenColumn("experts_per_token", "Experts used", "experts, mean over layers")
