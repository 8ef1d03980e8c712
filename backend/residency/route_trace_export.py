"""Routing records from and to ``route_trace v1`` files, the format of ``backend.residency.route_trace``.

What does not count after a warm start becomes the prompt (phase 0), and each prompt begins a turn. Caches are
empty at each sequence's start, which the format cannot say: the comment ``cold_turns=0,2`` does, and the
import here heeds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.errors import UserError
from backend.residency.eviction import Eviction
from backend.residency.lifetimes import stays_of
from backend.residency.route_trace import COLD_TURNS, FIRST_LINE, RouteTrace
from backend.residency.routing_record import LayerRouting, RoutingRecord

COLUMNS = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"
MOST_WORK = 50_000_000
"""Tokens × experts, over all layers: about 20 s of walks. Real traces have a fiftieth of it."""


def as_record(trace: RouteTrace) -> RoutingRecord:
    """Return the record of a trace that was read.

    Its tokens are those of any layer; a layer that lacks some has fewer accesses.

    Raises:
        UserError: It is too large to be walked at every cache size.
    """
    tokens = sorted({token for chosen in trace.chosen.values() for token in chosen})
    if len(tokens) * len(trace.chosen) * trace.experts > MOST_WORK:
        raise UserError(
            f"The trace has {len(tokens):,} tokens in {len(trace.chosen):,} layers of {trace.experts:,} "
            f"experts; tokens × layers × experts can be {MOST_WORK:,} at most. Cut it to fewer tokens."
        )
    traces, present, weights = {}, {}, {}
    for layer, chosen in trace.chosen.items():
        traces[layer], _ = trace.layer(layer)
        present[layer] = np.array([token in chosen for token in tokens])
        if trace.weights:
            weights[layer] = np.array(
                [weight for token in chosen for weight in trace.weights[layer][token]], np.float32
            )
    starts = [0] + [
        i
        for i, (before, after) in enumerate(pairwise(tokens), 1)
        if before[0] != after[0] and after[0] in trace.cold_turns
    ]
    return RoutingRecord.of(
        traces,
        counted=np.array([phase == 1 for _, phase, _ in tokens]),
        lengths=np.diff([*starts, len(tokens)]).tolist(),
        expert_bytes=trace.expert_bytes,
        model=trace.model,
        weights=weights,
        present=present,
        with_global=False,
        about={
            "architecture": trace.architecture,
            "dense_bytes_by_layer": [trace.dense_bytes.get(layer, 0) for layer in trace.chosen],
        },
    )


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
