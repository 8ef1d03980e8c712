"""What a token of a mixture used: its experts, how many of them its caches missed, how many are not its own.

Misses are **simulated**: all experts are in memory here, and the caches of :mod:`backend.residency` follow
what each token used, one cache a layer, cold before the prompt, as in the evaluation ``routing``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.evaluation.routing import UNITS, CacheSetup
from backend.generations.columns import CHANGED, MISSED, USED, TokenColumn
from backend.generations.readings import Reading
from backend.residency import OnlineCache
from backend.residency.expert_cache import expert_capacity
from backend.routing.routes import NONE
from backend.seeds import mixed_seed

if TYPE_CHECKING:
    from backend.routing.engine import RoutedEngine
    from backend.routing.policy import RoutingPolicy
    from backend.routing.reading import LayerReading


@dataclass(frozen=True)
class TokenExperts:
    """One token's experts, one entry a layer with a mixture.

    Attributes:
        used: Experts that it used, best first.
        missed: Of them, those that its layer's cache did not hold.
        changed: How many of them the model itself would not have used.
    """

    used: tuple[tuple[int, ...], ...]
    missed: tuple[tuple[int, ...], ...]
    changed: tuple[int, ...]

    @property
    def used_count(self) -> int:
        """Experts used, all layers."""
        return sum(map(len, self.used))

    @property
    def missed_count(self) -> int:
        """Experts missed, all layers."""
        return sum(map(len, self.missed))


class ExpertCaches:
    """The caches that one side's misses are counted for, one a layer, empty at first.

    Args:
        engine: The model.
        policy: The side's policy; one that looks at a cache brings its own, the others have the evaluation's:
            half of the experts, LRU.

    Raises:
        UserError: A cache cannot serve a token.
    """

    def __init__(self, engine: RoutedEngine, policy: RoutingPolicy) -> None:
        setup = CacheSetup().of(policy)
        layers = engine.anatomy.layers
        self._caches = {
            index: OnlineCache(
                layer.size,
                expert_capacity(setup.share, layer.size, layer.k, setup.slots),
                setup.eviction,
                mixed_seed(getattr(policy, "seed", 0), index, 0),
            )
            for index, layer in layers.items()
        }
        sizes = {
            f"{cache.capacity} of {layers[index].size} experts cached"
            for index, cache in self._caches.items()
        }
        size = sizes.pop() if len(sizes) == 1 else f"{setup.share:.0%} of the experts cached"
        self.missed = TokenColumn(
            MISSED,
            f"Experts missed (simulated, {size}, {setup.eviction.upper()})",
            f"of {sum(layer.k for layer in layers.values())}",
            "lower",
        )

    def serve(self, layers: dict[int, LayerReading]) -> list[TokenExperts]:
        """Let the caches follow the next tokens; return each one's experts."""
        tokens = len(next(iter(layers.values())).chosen)
        return [self._serve(layers, place) for place in range(tokens)]

    def readings(self, token: TokenExperts) -> list[Reading]:
        """Return a token's columns."""
        used = token.used_count
        shares = tuple(c / max(1, len(u)) for c, u in zip(token.changed, token.used, strict=True))
        return [
            Reading(self.missed, float(token.missed_count), _counts(token.missed), token.missed),
            Reading(CHANGED, sum(token.changed) / max(1, used), shares),
            Reading(USED, used / len(token.used), _counts(token.used), token.used),
        ]

    def _serve(self, layers: dict[int, LayerReading], place: int) -> TokenExperts:
        used, missed = [], []
        for index, cache in self._caches.items():
            row = layers[index].chosen[place]
            experts = row[row != NONE].astype("int64")
            used.append(tuple(experts.tolist()))
            missed.append(tuple(map(int, cache.access(experts).loaded)))
        return TokenExperts(
            tuple(used), tuple(missed), tuple(int(layers[index].outside[place]) for index in self._caches)
        )


def _counts(entries: tuple[tuple[int, ...], ...]) -> tuple[float, ...]:
    return tuple(float(len(each)) for each in entries)


class ExpertAccount:
    """What a side's tokens used, all together; those of the prompt do not count.

    Attributes:
        tokens: Tokens so far.
        mlp_density: None: what a mixture reads is counted in experts.
        model_density: None.
    """

    mlp_density = None
    model_density = None

    def __init__(self) -> None:
        self.tokens = 0
        self._used = self._missed = self._changed = self._rows = 0

    def add(self, token: TokenExperts) -> None:
        """Add a token."""
        self.tokens += 1
        self._rows += len(token.used)
        self._used += token.used_count
        self._missed += token.missed_count
        self._changed += sum(token.changed)

    def counted(self, value_bytes: int) -> dict[str, Any]:
        """Return the evaluation's own figures of these tokens: metric → (value, unit)."""
        if not self.tokens:
            return {}
        uses = max(1, self._used)
        values = {
            "miss_rate": self._missed / uses,
            "misses_per_token": self._missed / self.tokens,
            "experts_per_token": self._used / self._rows,
            "routing_change": self._changed / uses,
        }
        return {name: (value, UNITS[name]) for name, value in values.items()}
