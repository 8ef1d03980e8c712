"""Panels of mixtures of experts: miss rates, traffic, lifetimes, layers, quality against misses."""

from __future__ import annotations

from typing import Literal, get_args

from backend.errors import UserError
from backend.experiments.routing_records import RoutingInfo, routing_records
from backend.figures.metrics import QUALITY
from backend.figures.moe.compared import cost_of, exact_curves, placed_points, stored_lines
from backend.figures.moe.grid import nearest_stored
from backend.figures.moe.layers import layer_figure
from backend.figures.moe.lifetimes import RULES_SHOWN, lifetime_figure
from backend.figures.moe.miss_rates import TITLES, Scope, curve_in, miss_figure
from backend.figures.moe.quality import COSTS, Cost, quality_figure
from backend.figures.moe.sources import RoutingSource, routing_sources
from backend.figures.moe.traffic import traffic_map
from backend.figures.recipes.panels import PanelRecipe, Stored, recipe
from backend.figures.spec import FigureSpec
from backend.registry import did_you_mean
from backend.residency import Eviction, RoutingRecord, lifetimes_in
from backend.residency.routing_record import Start
from backend.results.routing import routing_points
from backend.settings import setting


def load(info: RoutingInfo) -> RoutingRecord:
    """Read a record."""
    return RoutingRecord.load(info.path)


class RoutingRecipe(PanelRecipe):
    """Whose routing is drawn."""

    routing: str | None = setting(
        None, "The routing: a model's label as on the page, its name, or an imported trace's file name."
    )

    def source(self, stored: Stored) -> tuple[RoutingSource, RoutingInfo]:
        """Return the routing that is asked for, by default the first that the page shows."""
        every = routing_sources(routing_points(stored.store), routing_records(stored.home))
        known = [source for source in every if source.original is not None]
        named = [source for source in known if self.routing in (None, *_names(source))]
        if not named:
            if not known:
                raise UserError(
                    "No routing is stored; measure a mixture of experts, or take one in by `import-trace`."
                )
            hint = did_you_mean(str(self.routing), [source.label for source in known])
            raise UserError(f"There is no routing '{self.routing}'; {hint}")
        info = named[0].original
        assert info is not None
        return named[0], info


class CacheRecipe(RoutingRecipe):
    """Whose routing, with what caches."""

    slots: int | None = setting(None, "Cache slots of a layer; by default a quarter.", unit="experts", ge=1)
    eviction: Literal["lru", "lfu", "random", "belady"] = setting("lru", "The caches' rule.")
    start: Literal["cold", "warm"] = setting("cold", "Counted from empty caches, or once they are filled.")

    def capacity(self, record: RoutingRecord) -> int:
        """Return the slots of a layer; fewer than a token uses are refused."""
        least, most = record.experts_per_token, record.experts
        slots = max(least, most // 4) if self.slots is None else self.slots
        if not least <= slots <= most:
            raise UserError(f"A layer's cache has from {least} to {most} slots here, not {slots}.")
        return slots

    def checked(self, record: RoutingRecord) -> Start:
        """Return the start; a warm one needs tokens that count."""
        curve_in(record, "per-layer", self.eviction, self.start)
        return self.start


@recipe("expert_traffic")
class TrafficPanel(RoutingRecipe):
    """Which experts are used, layer by layer."""

    by_load: bool = setting(False, "In each layer the busiest expert first.")

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the heat map."""
        source, info = self.source(stored)
        return traffic_map(load(info), source.label, by_load=self.by_load, where=source.origin(info))


@recipe("miss_curve")
class MissCurvePanel(RoutingRecipe):
    """Miss rate against cache size, under every rule; other policies beside the original routing."""

    scope: Scope = setting("per-layer", "A cache a layer, or one for all: per-layer or global.")
    start: Literal["cold", "warm"] = setting("cold", "Counted from empty caches, or once they are filled.")
    eviction: Literal["lru", "lfu"] = setting("lru", "The rule under which other policies are drawn.")
    rules: tuple[Eviction, ...] = setting(("lru", "lfu", "belady"), "The original routing's rules.")
    policies: bool = setting(True, "Draw other policies too; only a cache a layer, from empty.")
    log: bool = setting(False, "Logarithmic miss rates.")

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the curves."""
        source, info = self.source(stored)
        record = load(info)
        curves = {rule: curve_in(record, self.scope, rule, self.start) for rule in self.rules}
        if not curves:
            raise UserError(f"'rules' needs at least one of {', '.join(get_args(Eviction))}.")
        others, lines = {}, []
        if self.policies and (self.scope, self.start) == ("per-layer", source.start):
            others = exact_curves(source, None, self.eviction, load)
            lines = stored_lines(source, None, self.eviction)
        points = [point for _, _, each in lines for point in each]
        return miss_figure(
            source.label, curves, scope=self.scope, start=self.start, others=others, stored=lines,
            log=self.log, where=source.origin(info, points),
        )  # fmt: skip


@recipe("expert_layers")
class LayersPanel(CacheRecipe):
    """Miss rate layer by layer."""

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the lines."""
        source, info = self.source(stored)
        record = load(info)
        start = self.checked(record)
        return layer_figure(
            record, source.label, self.capacity(record), self.eviction, start, where=source.origin(info)
        )


@recipe("expert_lifetimes")
class LifetimesPanel(CacheRecipe):
    """How long experts stay in their cache."""

    def draw(self, stored: Stored) -> FigureSpec:
        """Return survival under every rule."""
        source, info = self.source(stored)
        record = load(info)
        start, slots = self.checked(record), self.capacity(record)
        if not record.routings:
            raise UserError("This routing was stored without its selections, so lifetimes are not known.")
        found = {rule: lifetimes_in(record, slots, rule, start) for rule in RULES_SHOWN}
        return lifetime_figure(
            found, source.label, slots, record.tokens_kept, source.origin(info), of=record.tokens
        )


@recipe("routing_quality")
class QualityPanel(CacheRecipe):
    """Quality against misses at one cache size (the stored one nearest to ``slots``), with Belady's bound."""

    quality: str = setting("delta_nll", "The vertical metric: perplexity, delta_nll, kl or agreement.")
    cost: Cost = setting(
        "miss_rate", "The horizontal one: miss_rate, misses_per_token or miss_bytes_per_token."
    )

    def draw(self, stored: Stored) -> FigureSpec:
        """Return the points."""
        QUALITY[self.quality]  # an unknown one says what it may have meant
        source, info = self.source(stored)
        record = load(info)
        asked = self.capacity(record)
        slots = nearest_stored(source.points, asked, self.eviction)
        placed = placed_points(source, self.cost, slots, self.eviction, load)
        if not placed:
            raise UserError(
                f"No routing of {source.label} has a quality and {COSTS[self.cost][0].lower()} under "
                f"{TITLES[self.eviction]}; an imported trace has none at all."
            )
        return quality_figure(
            placed, source.label, quality=self.quality, cost=self.cost, slots=slots,
            rule=TITLES[self.eviction], asked=asked,
            belady=cost_of(record, self.cost, slots, "belady", source.start),
            where=source.origin(info, [each.point for each in placed]),
        )  # fmt: skip


def _names(source: RoutingSource) -> tuple[str, ...]:
    return source.label, source.model, *(info.imported for info in source.infos.values() if info.imported)
