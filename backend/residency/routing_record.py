"""Routing records: which experts a model's tokens used, layer by layer, and what caches of every size miss.

A record holds the traffic of each expert, the miss curves of each layer and of one cache for all layers under
every eviction rule, and the selections themselves (of all tokens, or of the first ones), from which
lifetimes and traces for other tools are made. It is one Parquet file, small enough to be committed.

The curves are exact for routings that do not look at the cache. A routing that does (Cache-Prior, Max-Rank,
the cumulative threshold) was chosen for ONE cache: its record's curves say what other caches would miss on
the experts chosen for that one, and its LRU curve at its own size is what it met.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from backend.residency.eviction import EVICTIONS, Eviction
from backend.residency.miss_curve import MissCurve, miss_curves_of, total
from backend.residency.trace import ExpertTrace

Start = Literal["cold", "warm"]
STARTS: tuple[Start, ...] = ("cold", "warm")
WARM_AFTER = 0.125
"""Share of a sequence that only warms the caches, where the record does not say which tokens count."""


@dataclass(frozen=True, eq=False)
class LayerRouting:
    """The experts that one layer's tokens used.

    Attributes:
        layer: The layer's index in the model.
        trace: Experts of the tokens kept, r_1 first.
        present: Which of the kept tokens the layer has; the others were not recorded. # bool [T_kept]
        weights: Router weights beside ``trace.entries``, None if not recorded. # fp32 [A]
    """

    layer: int
    trace: ExpertTrace
    present: NDArray[np.bool_]
    weights: NDArray[np.float32] | None = None

    def sequences(self, lengths: Sequence[int]) -> list[ExpertTrace]:
        """Return the part of each sequence of ``lengths`` tokens; caches are empty at each one's start."""
        ends = np.cumsum([0, *lengths])
        rows = np.concatenate([[0], np.cumsum(self.present)])[np.minimum(ends, len(self.present))]
        return [self._rows(first, end) for first, end in pairwise(rows)]

    def first(self, tokens: int) -> LayerRouting:
        """Return the first ``tokens`` tokens."""
        part = self._rows(0, int(self.present[:tokens].sum()))
        weights = None if self.weights is None else self.weights[: len(part.entries)]
        return LayerRouting(self.layer, part, self.present[:tokens], weights)

    def _rows(self, first: int, end: int) -> ExpertTrace:
        offsets = self.trace.offsets[first : end + 1]
        return ExpertTrace(
            offsets - offsets[0], self.trace.entries[offsets[0] : offsets[-1]], self.trace.size
        )


@dataclass(frozen=True, eq=False)
class RoutingRecord:
    """One model's routing of some tokens.

    Attributes:
        model: Its name, "" if unknown.
        layers: Indices of the MoE layers in the model, rising.
        experts_by_layer: N of each layer (shared experts are not routed, and not counted).
        bytes_by_layer: Bytes of one routed expert of each layer, 0 if unknown.
        lengths: Tokens of each sequence, one after the other; caches are empty at each one's start.
        counted: Which tokens count after a warm start; the others only fill the caches. # bool [T]
        traffic: How often each expert was used; of a layer with fewer experts the rest is 0. # int64 [L, N]
        curves: Misses of every cache size, by (place of the layer in ``layers``, rule, start).
        global_curves: The same of one cache for all layers, by (rule, start); may be empty.
        routings: The selections of the first ``tokens_kept`` tokens; may be empty.
        about: What else is known of it, as JSON values; among it ``dense_bytes``, what every token reads.
    """

    model: str
    layers: tuple[int, ...]
    experts_by_layer: tuple[int, ...]
    bytes_by_layer: tuple[int, ...]
    lengths: tuple[int, ...]
    counted: NDArray[np.bool_]
    traffic: NDArray[np.int64]
    curves: dict[tuple[int, Eviction, Start], MissCurve]
    global_curves: dict[tuple[Eviction, Start], MissCurve]
    routings: tuple[LayerRouting, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """T, of all sequences."""
        return len(self.counted)

    @property
    def tokens_kept(self) -> int:
        """How many of the first tokens have their selections in the record."""
        return len(self.routings[0].present) if self.routings else 0

    @property
    def experts(self) -> int:
        """N, of the layer with most experts."""
        return max(self.experts_by_layer)

    @property
    def expert_bytes(self) -> int:
        """Bytes of one expert, averaged over layers; 0 if a layer's are unknown."""
        known = all(self.bytes_by_layer)
        return round(sum(self.bytes_by_layer) / len(self.layers)) if known else 0

    @property
    def dense_bytes(self) -> int:
        """Bytes that every token reads beside routed experts, as far as known; 0 if nothing is."""
        return int(self.about.get("dense_bytes") or sum(self.about.get("dense_bytes_by_layer", ())))

    @property
    def used_bytes_per_token(self) -> float:
        """Bytes of the routed experts that a token uses on average, over all layers; 0 if unknown."""
        used = self.traffic.sum(axis=1) @ np.array(self.bytes_by_layer)
        return float(used) / max(1, self.tokens) if all(self.bytes_by_layer) else 0.0

    @cached_property
    def experts_per_token(self) -> int:
        """K: the most experts that a token uses in a layer, and the smallest cache that has a figure."""
        return max(curve.smallest for (_, _, start), curve in self.curves.items() if start == "cold")

    @cached_property
    def kept_lengths(self) -> tuple[int, ...]:
        """Tokens of each sequence among those kept."""
        ends = np.minimum(np.cumsum([0, *self.lengths]), self.tokens_kept)
        return tuple(int(each) for each in np.diff(ends) if each)

    @property
    def has_warm(self) -> bool:
        """Whether there is anything to count after a warm start."""
        return (0, "lru", "warm") in self.curves

    def curve(self, rule: Eviction, start: Start = "cold") -> MissCurve:
        """Return the misses of all layers, each with a cache of its own, of the same number of slots.

        A layer with fewer experts than others has all of its own in a larger cache.
        """
        return total(
            _widened(self.curves[place, rule, start], self.experts) for place in range(len(self.layers))
        )

    def misses_per_token(self, slots: int, rule: Eviction, start: Start = "cold") -> float:
        """Return the experts that a token loads on average, all layers together."""
        each = (self.curves[place, rule, start] for place in range(len(self.layers)))
        return sum(curve.misses_per_token(max(slots, curve.smallest)) for curve in each)

    def miss_bytes_per_token(self, slots: int, rule: Eviction, start: Start = "cold") -> float | None:
        """Return the bytes that a token loads on average, all layers; None if an expert's are unknown."""
        if not all(self.bytes_by_layer):
            return None
        each = (self.curves[place, rule, start] for place in range(len(self.layers)))
        return sum(
            curve.misses_per_token(max(slots, curve.smallest)) * size
            for curve, size in zip(each, self.bytes_by_layer, strict=True)
        )

    @classmethod
    def of(
        cls,
        traces: Mapping[int, ExpertTrace],
        *,
        counted: NDArray[np.bool_] | None = None,
        lengths: Sequence[int] | None = None,
        expert_bytes: int | Mapping[int, int] = 0,
        model: str = "",
        weights: Mapping[int, NDArray[np.float32]] | None = None,
        present: Mapping[int, NDArray[np.bool_]] | None = None,
        rules: Sequence[Eviction] = EVICTIONS,
        with_global: bool = True,
        keep_tokens: int | None = None,
        seed: int = 0,
        about: dict[str, Any] | None = None,
    ) -> RoutingRecord:
        """Reduce traces to a record.

        Args:
            traces: By layer, every token's experts; sequences one after the other.
            counted: Which tokens count after a warm start; None: all but the first eighth of each sequence.
                # [T]
            lengths: Tokens of each sequence; None for a single one.
            expert_bytes: Bytes of one routed expert, or by layer; 0 for unknown.
            model: The model's name.
            weights: Router weights of the entries, by layer.
            present: Which tokens a layer has, by layer; None where it has all.
            rules: The eviction rules of the curves.
            with_global: Make the curves of one cache for all layers too.
            keep_tokens: How many of the first tokens keep their selections; None for all.
            seed: Of the random rule.
            about: Kept beside it.

        Raises:
            ValueError: Traces, tokens and sequences do not fit together.
        """
        order = sorted(traces)
        everywhere = np.ones(max(trace.tokens for trace in traces.values()), bool)
        if present:
            everywhere = np.ones(len(next(iter(present.values()))), bool)
        tokens = len(everywhere)
        lengths = (tokens,) if lengths is None else tuple(map(int, lengths))
        if sum(lengths) != tokens:
            raise ValueError(f"sequences of {sum(lengths)} tokens in all, traces of {tokens}")
        if counted is None:
            counted = np.concatenate([np.arange(each) >= int(WARM_AFTER * each) for each in lengths])
        if len(counted) != tokens:
            raise ValueError(f"'counted' is of {len(counted)} tokens, traces of {tokens}")
        routings = tuple(
            LayerRouting(
                layer, traces[layer], (present or {}).get(layer, everywhere), (weights or {}).get(layer)
            )
            for layer in order
        )
        for each in routings:
            if each.present.sum() != each.trace.tokens or len(each.present) != tokens:
                raise ValueError(f"layer {each.layer} has {each.trace.tokens} tokens, not {tokens}")
        sizes = expert_bytes if isinstance(expert_bytes, Mapping) else dict.fromkeys(order, expert_bytes)
        most = max(each.trace.size for each in routings)
        traffic = np.stack([np.bincount(each.trace.entries, minlength=most) for each in routings])
        counted = np.asarray(counted, bool)
        layered = [(each.sequences(lengths), counted[each.present]) for each in routings]
        kept = tokens if keep_tokens is None else min(keep_tokens, tokens)
        return cls(
            model=model,
            layers=tuple(order),
            experts_by_layer=tuple(each.trace.size for each in routings),
            bytes_by_layer=tuple(int(sizes.get(layer, 0)) for layer in order),
            lengths=lengths,
            counted=counted,
            traffic=traffic.astype(np.int64),
            curves={
                (place, rule, start): curve
                for place, (parts, late) in enumerate(layered)
                for (rule, start), curve in _curves(parts, late, rules, seed).items()
            },
            global_curves=(_curves(*whole(routings, lengths, counted), rules, seed) if with_global else {}),
            routings=tuple(each.first(kept) for each in routings) if kept else (),
            about=dict(about or {}),
        )

    def save(self, path: Path) -> None:
        """Write the record as one Parquet file, whole or not at all.

        Raises:
            UserError: It cannot be written.
        """
        from backend.residency.routing_file import write

        write(self, path)

    @classmethod
    def load(cls, path: Path) -> RoutingRecord:
        """Read a record.

        Raises:
            UserError: The file is none.
        """
        from backend.residency.routing_file import read

        return read(path)


def whole(
    routings: Sequence[LayerRouting], lengths: Sequence[int], counted: NDArray[np.bool_]
) -> tuple[list[ExpertTrace], NDArray[np.bool_]]:
    """Return the accesses to one cache for all layers: one batch a token and layer, in their order.

    Expert e of a layer is entry e plus the experts of the layers before it.

    Args:
        routings: The layers.
        lengths: Tokens of each sequence.
        counted: Which tokens count. # [T]

    Returns:
        One trace a sequence; which of all batches count.
    """
    firsts = np.cumsum([0, *(each.trace.size for each in routings)])
    token = np.concatenate([np.flatnonzero(each.present) for each in routings])
    order = np.argsort(token, kind="stable")  # stable: within a token by layer
    counts = np.concatenate([each.trace.counts for each in routings])
    entries = np.concatenate([each.trace.entries + firsts[i] for i, each in enumerate(routings)])
    starts = np.cumsum(counts) - counts
    offsets = np.concatenate([[0], np.cumsum(counts[order])])
    within = np.arange(len(entries)) - np.repeat(offsets[:-1], counts[order])
    ordered = entries[np.repeat(starts[order], counts[order]) + within].astype(np.int32)
    every = ExpertTrace(offsets.astype(np.int64), ordered, int(firsts[-1]))
    batches = np.bincount(token, minlength=len(counted))
    ends = np.concatenate([[0], np.cumsum(batches)])[np.cumsum(lengths)]
    all_present = np.ones(len(order), bool)
    parts = LayerRouting(-1, every, all_present).sequences(np.diff([0, *ends]).tolist())
    return parts, counted[token[order]]


def sequence_curve(
    parts: Sequence[ExpertTrace], counted: NDArray[np.bool_], rule: Eviction, start: Start, seed: int = 0
) -> MissCurve:
    """Return the misses of some sequences, each from an empty cache.

    Args:
        parts: One trace a sequence.
        counted: Which of all their batches count after a warm start.
        rule: The eviction rule.
        start: "cold" counts all.
        seed: Of the random rule.
    """
    return sequence_curves(parts, counted, rule, seed)[start]


def sequence_curves(
    parts: Sequence[ExpertTrace], counted: NDArray[np.bool_], rule: Eviction, seed: int = 0
) -> dict[Start, MissCurve]:
    """Return the misses of some sequences by their start, see :func:`sequence_curve`."""
    late = np.split(counted, np.cumsum([part.tokens for part in parts])[:-1])
    both = [miss_curves_of(part, rule, some, seed) for part, some in zip(parts, late, strict=True)]
    return {start: total(curves) for start, curves in zip(STARTS, zip(*both, strict=True), strict=True)}


def _curves(
    parts: Sequence[ExpertTrace], counted: NDArray[np.bool_], rules: Sequence[Eviction], seed: int
) -> dict[tuple[Eviction, Start], MissCurve]:
    """Return the curves of some sequences; none for a warm start if nothing counts."""
    starts = STARTS if counted.any() else STARTS[:1]
    found = {rule: sequence_curves(parts, counted, rule, seed) for rule in rules}
    return {(rule, start): curves[start] for rule, curves in found.items() for start in starts}


def _widened(curve: MissCurve, size: int) -> MissCurve:
    """Return a curve up to ``size`` slots: more than N slots hit what N do."""
    if curve.size == size:
        return curve
    hits = np.concatenate([curve.hits, np.repeat(curve.hits[-1], size - curve.size)])
    return MissCurve(hits, curve.accesses, curve.first_uses, curve.tokens, curve.smallest)
