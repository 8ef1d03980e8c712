"""Reads expert-routing traces recorded on devices (``route_trace v1``).

The format is a CSV: a first line ``# route_trace v1``, comment lines with ``key=value`` pairs (``model``,
``arch``, ``n_expert``; ``layer`` with ``expert_bytes`` and ``dense_bytes``), a header line, and one row for
each expert used: ``turn, phase`` (0 prompt, 1 decode), ``step, layer, slot`` (the rank, from 0), ``expert,
weight, residency, expert_bytes`` (0 on a hit). Slots and whole tokens of a layer may be missing.
(Helldez/BigMoeOnEdge.) Turns are one conversation; a comment ``cold_turns=0,2`` says which of them began with
empty caches.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from backend.errors import UserError
from backend.residency.trace import ExpertTrace

FIRST_LINE = "# route_trace v1"
NEEDED = ("phase", "step", "layer", "slot", "expert")
COLD_TURNS = "cold_turns"
MAX_BYTES = 64 * 2**20
MAX_EXPERTS = 4096
MAX_LAYERS = 1024
MAX_ENTRIES = 2**18
"""Layers × experts: what one cache for all of them is walked over."""

Token = tuple[int, int, int]
"""Turn, phase, step: what orders the tokens."""


@dataclass(frozen=True, eq=False)
class RouteTrace:
    """One model's routing of one conversation.

    Attributes:
        model: The model's file or name, "" if the trace does not say.
        architecture: As the trace names it.
        experts: N, the routed experts of a layer.
        expert_bytes: Bytes of one expert, by layer; empty if the trace does not say.
        chosen: For each layer and token (in order) its experts, r_1 first.
        weights: Their router weights in the same places; empty if the trace does not give all.
        dense_bytes: Bytes that every token reads in a layer, by layer; empty if the trace does not say.
        cold_turns: Turns that began with empty caches, beside the first.
    """

    model: str
    architecture: str
    experts: int
    expert_bytes: dict[int, int]
    chosen: dict[int, dict[Token, tuple[int, ...]]]
    weights: dict[int, dict[Token, tuple[float, ...]]] = field(default_factory=dict)
    dense_bytes: dict[int, int] = field(default_factory=dict)
    cold_turns: frozenset[int] = frozenset()

    @property
    def experts_per_token(self) -> int:
        """K: the most experts that a token uses in a layer."""
        return max(len(experts) for tokens in self.chosen.values() for experts in tokens.values())

    def layer(self, layer: int) -> ExpertTrace:
        """Return one layer's accesses, over the tokens that it has."""
        return ExpertTrace.from_lists(list(self.chosen[layer].values()), self.experts)

    @cached_property
    def tokens(self) -> list[Token]:
        """The tokens that any layer has, in order."""
        return sorted({token for chosen in self.chosen.values() for token in chosen})

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sequence, one after the other: caches are empty at each one's start."""
        starts = [0] + [
            i
            for i, (before, after) in enumerate(pairwise(self.tokens), 1)
            if before[0] != after[0] and after[0] in self.cold_turns
        ]
        return [end - first for first, end in pairwise([*starts, len(self.tokens)])]


def read_route_trace(path: Path) -> RouteTrace:
    """Read a ``route_trace v1`` file.

    Raises:
        UserError: It is missing, larger than 64 MiB, or not what the format says; names the line.
    """
    return parse_route_trace(path.name, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Return a trace's content.

    Raises:
        UserError: It is missing or larger than 64 MiB.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _too_large(path.name)
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"The trace {path} cannot be read ({error.strerror}).") from error


def parse_route_trace(name: str, content: bytes) -> RouteTrace:
    """Read the content of a ``route_trace v1`` file.

    Args:
        name: What it is called, for messages.
        content: Its bytes.

    Raises:
        UserError: It is larger than 64 MiB, or not what the format says; names the line.
    """
    if len(content) > MAX_BYTES:
        raise _too_large(name)
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"The trace {name} is no text file; expected '{FIRST_LINE}'.") from error
    if not lines or lines[0].strip() != FIRST_LINE:
        raise UserError(f"The file {name} is no routing trace: its first line is not '{FIRST_LINE}'.")
    about, expert_bytes, dense_bytes = _comments(lines)
    chosen, weights = _chosen(name, lines)
    seen = 1 + max(max(experts) for tokens in chosen.values() for experts in tokens.values())
    stated = _number(about.get("n_expert", ""), seen)
    if seen > stated:
        raise UserError(f"The trace {name} uses expert {seen - 1}, but says that it has {stated}.")
    if stated > MAX_EXPERTS or stated * len(chosen) > MAX_ENTRIES:
        raise UserError(
            f"The trace {name} says it has {stated:,} experts in each of {len(chosen):,} layers; at most "
            f"{MAX_EXPERTS:,} a layer and {MAX_ENTRIES:,} in all can be."
        )
    return RouteTrace(
        about.get("model", ""),
        about.get("arch", ""),
        stated,
        expert_bytes,
        chosen,
        weights,
        dense_bytes,
        frozenset(_number(turn) for turn in about.get(COLD_TURNS, "").split(",")),
    )


def _too_large(name: str) -> UserError:
    return UserError(f"The trace {name} is larger than {MAX_BYTES // 2**20} MiB; cut it to fewer tokens.")


def _number(text: str, otherwise: int = -1) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else otherwise


def _comments(lines: list[str]) -> tuple[dict[str, str], dict[int, int], dict[int, int]]:
    """Return what is said of the model, and bytes of an expert and of the rest by layer."""
    about: dict[str, str] = {}
    sizes: dict[str, dict[int, int]] = {"expert_bytes": {}, "dense_bytes": {}}
    for line in lines[1:]:
        if line.startswith("#"):
            pairs = dict(word.split("=", 1) for word in line[1:].split() if "=" in word)
            if (layer := _number(pairs.get("layer", ""))) < 0:
                about |= pairs
                continue
            for name, by_layer in sizes.items():
                if (size := _number(pairs.get(name, ""))) >= 0:
                    by_layer[layer] = size
    return about, sizes["expert_bytes"], sizes["dense_bytes"]


def _chosen(
    name: str, lines: list[str]
) -> tuple[dict[int, dict[Token, tuple[int, ...]]], dict[int, dict[Token, tuple[float, ...]]]]:
    """Return experts and weights by layer and token; no weights unless every row has one."""
    slots: dict[int, dict[Token, dict[int, tuple[int, float]]]] = defaultdict(lambda: defaultdict(dict))
    weighed = True
    for row in _rows(name, lines):
        used = slots[row.layer][row.turn, row.phase, row.step]
        if row.slot in used or any(row.expert == expert for expert, _ in used.values()):
            what = f"slot {row.slot}" if row.slot in used else f"expert {row.expert}"
            raise UserError(
                f"Line {row.line} of the trace {name} gives {what} of layer {row.layer}, step {row.step} a "
                "second time."
            )
        used[row.slot] = row.expert, row.weight
        weighed &= math.isfinite(row.weight)
    if not slots:
        raise UserError(f"The trace {name} has no rows.")
    ordered = {
        layer: {token: [used[slot] for slot in sorted(used)] for token, used in sorted(tokens.items())}
        for layer, tokens in sorted(slots.items())
    }
    experts, weights = (
        {
            layer: {token: tuple(pair[i] for pair in pairs) for token, pairs in tokens.items()}
            for layer, tokens in ordered.items()
        }
        for i in range(2)
    )
    return experts, weights if weighed else {}  # type: ignore[return-value]


class _Row(NamedTuple):
    line: int
    turn: int
    phase: int
    step: int
    layer: int
    slot: int
    expert: int
    weight: float


def _rows(name: str, lines: list[str]) -> Iterator[_Row]:
    numbered = ((i, line) for i, line in enumerate(lines, 1) if line.strip() and not line.startswith("#"))
    _, header = next(numbered, (0, ""))
    columns = next(csv.reader([header]), [])
    missing = [column for column in NEEDED if column not in columns]
    if missing:
        raise UserError(f"The trace {name} has no column '{missing[0]}'; it needs {', '.join(NEEDED)}.")
    at = [columns.index(column) if column in columns else -1 for column in ("turn", *NEEDED)]
    at_weight = columns.index("weight") if "weight" in columns else -1
    for i, line in numbered:
        cells = line.split(",")
        try:
            turn, phase, step, layer, slot, expert = (int(cells[c]) if c >= 0 else 0 for c in at)
            weight = float(cells[at_weight] or "nan") if 0 <= at_weight < len(cells) else math.nan
        except (ValueError, IndexError) as error:
            raise UserError(
                f"Line {i} of the trace {name} is not a row of numbers (it says '{line[:60]}')."
            ) from error
        if phase not in (0, 1) or min(turn, step, slot) < 0:
            raise UserError(f"Line {i} of the trace {name} has a turn, phase, step or slot that cannot be.")
        if not (0 <= layer < MAX_LAYERS and 0 <= expert < MAX_EXPERTS):
            raise UserError(
                f"Line {i} of the trace {name} names layer {layer}, expert {expert}; at most {MAX_LAYERS} "
                f"layers of {MAX_EXPERTS} experts can be."
            )
        yield _Row(i, turn, phase, step, layer, slot, expert, weight)
