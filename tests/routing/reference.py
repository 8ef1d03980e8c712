"""Slow, obvious references of the routing policies: loops over tokens, lists, Python numbers."""

from __future__ import annotations

import numpy as np

from backend.routing.routes import Routes, rank


def make_routes(scores: np.ndarray, k: int) -> Routes:
    """Routes of given scores; the model's own choice are the k largest, ties by index."""
    scores = np.asarray(scores, np.float32)
    own = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    finite = np.where(np.isfinite(scores), scores, -np.inf).astype(np.float64)
    likely = np.exp(finite - finite.max(1, keepdims=True))
    likely /= likely.sum(1, keepdims=True)
    return Routes(rank(scores, own), scores, likely.astype(np.float32), k)


class SlowCache:
    """One cache of experts: LRU or LFU with kept counts, ties by least recent."""

    def __init__(self, size: int, capacity: int, rule: str) -> None:
        self.capacity, self.rule = capacity, rule
        self.inside: set[int] = set()
        self.clock = 0
        self.used = {e: -1 - e for e in range(size)}  # never used: the lower index goes last
        self.count = dict.fromkeys(range(size), 0)

    def serve(self, chosen: list[int]) -> int:
        misses = len(set(chosen) - self.inside)
        for expert in chosen:
            self.clock += 1
            self.used[expert] = self.clock
            self.count[expert] += 1
        self.inside |= set(chosen)
        while len(self.inside) > self.capacity:
            idle = self.inside - set(chosen)
            key = self.used.get if self.rule == "lru" else lambda e: (self.count[e], self.used[e])
            self.inside.remove(min(idle, key=key))
        return misses


def promoted(order: list[int], inside: set[int], m: int, j: int, k: int) -> list[int]:
    first = order[:j]
    near = [e for e in order[j:m] if e in inside]
    rest = [e for e in order[j:] if e not in near]
    return (first + near + rest)[:k]


def lifted(order: list[int], z: np.ndarray, inside: set[int], lift: float, j: int, k: int) -> list[int]:
    raised = {
        e: np.float32(z[e] + np.float32(lift)) if place < j or e in inside else z[e]
        for place, e in enumerate(order)
    }
    return sorted(order, key=lambda e: (-raised[e], order.index(e)))[:k]


def in_rank_order(chosen: list[int], order: list[int]) -> list[int]:
    return sorted(chosen, key=order.index)
