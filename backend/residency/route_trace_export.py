"""Routing records from and to ``route_trace v1`` files (``backend.residency.route_trace``), and miss curves.

What does not count after a warm start becomes the prompt (phase 0), and each prompt begins a turn. Caches are
empty at each sequence's start, which the format cannot say: the comment ``cold_turns=0,2`` does, and the
import here heeds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.residency.eviction import Eviction
from backend.residency.lifetimes import stays_of
from backend.residency.miss_curve import MissCurve, total
from backend.residency.route_trace import COLD_TURNS, FIRST_LINE, RouteTrace, read_route_trace
from backend.residency.routing_record import LayerRouting, RoutingRecord, Start, sequence_curve, whole

COLUMNS = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"
MOST_WORK = 50_000_000
"""Tokens × experts, over all layers: about 20 s of walks. Real traces have a fiftieth of it."""


def as_record(trace: RouteTrace) -> RoutingRecord:
    """Return the record of a trace that was read.

    Its tokens are those of any layer; a layer that lacks some has fewer accesses.

    Raises:
        UserError: It is too large to be walked at every cache size.
    """
    tokens = trace.tokens
    if len(tokens) * len(trace.chosen) * trace.experts > MOST_WORK:
        raise UserError(
            f"The trace has {len(tokens):,} tokens in {len(trace.chosen):,} layers of {trace.experts:,} "
            f"experts; tokens × layers × experts can be {MOST_WORK:,} at most. Cut it to fewer tokens."
        )
    routings = layers_of(trace)
    return RoutingRecord.of(
        {each.layer: each.trace for each in routings},
        counted=decoded(trace),
        lengths=trace.lengths,
        expert_bytes=trace.expert_bytes,
        model=trace.model,
        weights={each.layer: each.weights for each in routings if each.weights is not None},
        present={each.layer: each.present for each in routings},
        with_global=False,
        about={
            "architecture": trace.architecture,
            "dense_bytes_by_layer": [trace.dense_bytes.get(layer, 0) for layer in trace.chosen],
        },
    )


def layers_of(trace: RouteTrace) -> list[LayerRouting]:
    """Return each layer's selections beside the tokens that it has."""
    found = []
    for layer, chosen in trace.chosen.items():
        present = np.array([token in chosen for token in trace.tokens])
        weights = None
        if trace.weights:
            by_token = trace.weights[layer]
            weights = np.array([weight for token in chosen for weight in by_token[token]], np.float32)
        found.append(LayerRouting(layer, trace.layer(layer), present, weights))
    return found


def decoded(trace: RouteTrace) -> NDArray[np.bool_]:
    """Return which tokens were decoded (not prompt): those that count after a warm start. # [T]"""
    return np.array([phase == 1 for _, phase, _ in trace.tokens])


def miss_curve(
    path: Path,
    eviction: Eviction = "lru",
    *,
    scope: Literal["per-layer", "global"] = "per-layer",
    warm: bool = False,
    seed: int = 0,
) -> MissCurve:
    """Return the misses of a recorded trace at every number of cache slots, caches cold at each sequence.

    Args:
        path: A ``route_trace v1`` file.
        eviction: The rule.
        scope: One cache a layer (slots are those of one layer), or one for all layers.
        warm: Count decoded tokens only, with the caches as the prompt left them; else count all, from empty.
        seed: Of the random rule.

    Returns:
        The curve, from K slots on; ``miss_rates()`` maps slots to the miss rate.

    Raises:
        UserError: The file cannot be read as a trace, or has no decoded tokens to count.
    """
    trace = read_route_trace(path)
    layers, counted = layers_of(trace), decoded(trace)
    if warm and not counted.any():
        raise UserError(
            f"The trace {path.name} has no decoded tokens (phase 1), so there is nothing to count after a "
            "warm start; ask for a cold one."
        )
    if scope == "global":
        walked = [whole(layers, trace.lengths, counted)]
    else:
        walked = [(layer.sequences(trace.lengths), counted[layer.present]) for layer in layers]
    start: Start = "warm" if warm else "cold"
    return total(sequence_curve(parts, late, eviction, start, seed) for parts, late in walked)


def route_trace_lines(
    record: RoutingRecord, slots: int | None = None, eviction: Eviction = "lru"
) -> Iterator[str]:
    """Yield the lines of a record as ``route_trace v1``, without line ends.

    Args:
        record: The routing; only the tokens whose selections it keeps are written.
        slots: Slots of each layer's cache, which says what was resident; None: nothing ever was.
        eviction: That cache's rule.

    Raises:
        UserError: The record keeps no selections, or the cache is too small for a token.
    """
    if not record.routings:
        raise UserError("This routing was stored without its selections, so there is no trace to write.")
    counted = record.counted[: record.tokens_kept]
    firsts = {0, *np.cumsum(record.kept_lengths)[:-1].tolist()}
    begins = sorted(firsts | set((1 + np.flatnonzero(counted[:-1] & ~counted[1:])).tolist()))
    said: dict[str, object] = {
        "model": (record.model or "unknown").replace(" ", "_"),
        "arch": str(record.about.get("architecture") or "unknown").replace(" ", "_"),
        "n_layer": len(record.layers),
        "n_expert": record.experts,
        "n_expert_used": record.experts_per_token,
    }
    if len(firsts) > 1:
        said[COLD_TURNS] = ",".join(str(turn) for turn, first in enumerate(begins) if first in firsts)
    if slots is not None:
        said |= {"cache_slots": slots, "cache_eviction": eviction}
    yield FIRST_LINE
    yield "# " + " ".join(f"{name}={value}" for name, value in said.items())
    dense = record.about.get("dense_bytes_by_layer") or [0] * len(record.layers)
    for layer, size, rest in zip(record.layers, record.bytes_by_layer, dense, strict=True):
        if size:
            yield f"# layer={layer} expert_bytes={size}" + (f" dense_bytes={rest}" if rest else "")
    yield COLUMNS
    by_layer = [_rows(each, record, slots, eviction) for each in record.routings]
    for turn, (first, end) in enumerate(pairwise([*begins, record.tokens_kept])):
        for token in range(first, end):
            at = f"{turn},{int(counted[token])},{token - first}"
            for layer, rows in zip(record.layers, by_layer, strict=True):
                for slot, (expert, weight, resident, size) in enumerate(rows[token]):
                    yield f"{at},{layer},{slot},{expert},{weight},{resident},{size}"


def _rows(
    routing: LayerRouting, record: RoutingRecord, slots: int | None, eviction: Eviction
) -> list[list[tuple[int, str, int, int]]]:
    """Return, for each token kept, the layer's rows: expert, weight, residency, bytes loaded."""
    trace, size = routing.trace, record.bytes_by_layer[record.layers.index(routing.layer)]
    hits: NDArray[np.bool_] = np.zeros(len(trace.entries), bool)
    if slots is not None:
        hits = np.concatenate(
            [stays_of(part, slots, eviction).hits for part in routing.sequences(record.kept_lengths)]
        )
    found: list[list[tuple[int, str, int, int]]] = [[] for _ in routing.present]
    for token, (first, end) in zip(np.flatnonzero(routing.present), pairwise(trace.offsets), strict=True):
        for a in range(int(first), int(end)):
            weight = "" if routing.weights is None else f"{routing.weights[a]:.6g}"
            found[token].append((int(trace.entries[a]), weight, int(hits[a]), 0 if hits[a] else size))
    return found
