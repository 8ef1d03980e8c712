"""Slow, obvious caches, written from the specification with Python's sets and loops."""

from __future__ import annotations

import numpy as np

NEVER = 10**9


def members_of(trace):
    return [each.tolist() for each in trace.members()]


def next_uses(tokens):
    """For each token, the next token that uses each of its members."""
    upcoming, found = {}, []
    for t in range(len(tokens) - 1, -1, -1):
        found.append({i: upcoming.get(i, NEVER) for i in tokens[t]})
        upcoming |= dict.fromkeys(tokens[t], t)
    return found[::-1]


class ReferenceCache:
    """One cache of C entries; ``draws(t, i)`` is the random rule's draw for entry i at token t."""

    def __init__(self, capacity, rule, *, ranked=False, draws=None):
        self.capacity, self.rule, self.ranked, self.draws = capacity, rule, ranked, draws
        self.cache, self.age, self.count, self.next, self.t = set(), {}, {}, {}, 0

    def worth(self, i):
        """What an idle entry is kept by, the larger the better; ties go to the lower index."""
        by_age = self.age[i] if self.ranked else (self.age[i][0],)
        return {
            "lru": lambda: (*by_age, -i),
            "lfu": lambda: (self.count[i], *by_age) if self.ranked else (self.count[i], -i),
            "random": lambda: (self.draws(self.t, i), -i),
            "belady": lambda: (-self.next[i], -i),
        }[self.rule]()

    def access(self, members, scores=None, next_use=None):
        """Serve one token: return its misses with the old cache, then update."""
        wanted = set(members)
        missed = wanted - self.cache
        for rank, i in enumerate(members):
            self.age[i] = (self.t, rank)
            self.count[i] = self.count.get(i, 0) + 1
        self.next |= next_use or {}
        if self.rule == "belady" and not self.ranked:
            self.cache = set(sorted(self.cache | wanted, key=self.worth, reverse=True)[: self.capacity])
        elif len(wanted) > self.capacity:
            hits = self.cache & wanted
            order = {i: rank for rank, i in enumerate(members)} if scores is None else {}
            loads = sorted(missed, key=lambda i: (order[i],) if order else (-scores[i], i))
            self.cache = hits | set(loads[: self.capacity - len(hits)])
        else:
            idle = self.cache - wanted
            evicted = max(0, min(len(idle), len(wanted) + len(idle) - self.capacity))
            for i in sorted(idle, key=self.worth)[:evicted]:
                self.cache.remove(i)
            self.cache |= wanted
        self.t += 1
        return len(missed)


def reference_misses(trace, capacity, rule, draws=None):
    """Misses of each token."""
    cache = ReferenceCache(capacity, rule, ranked=trace.ranked, draws=draws)
    tokens = members_of(trace)
    return [
        cache.access(members, None if trace.scores is None else trace.scores[t], uses)
        for t, (members, uses) in enumerate(zip(tokens, next_uses(tokens), strict=True))
    ]


def reference_choice(scores, k, gammas, capacity, rule, *, exempt=0, draws=None):
    """Masks and hits of cache-aware top-k over one sequence. # scores: [T, N]"""
    cache = ReferenceCache(capacity, rule, draws=draws)
    masks, hits = np.zeros(scores.shape, bool), 0
    for t, row in enumerate(scores):
        largest = sorted(range(len(row)), key=lambda i: (-row[i], i))[:exempt]
        weighed = [
            s if i in cache.cache or i in largest else np.float32(s) * np.float32(gammas[t])
            for i, s in enumerate(row)
        ]
        members = sorted(sorted(range(len(row)), key=lambda i: (-weighed[i], i))[:k])
        masks[t, members] = True
        hits += len(members) - cache.access(members, row)
    return masks, hits
