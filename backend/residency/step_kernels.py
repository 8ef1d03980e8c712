"""Compiled steps of one cache: what a token's accesses change, over a trace or while masks are chosen.

What the kernels share, for N entries of one hook (columns, neurons) or one layer (experts):

* ``rows`` or ``offsets`` and ``entries``: a trace's accesses, see ``backend.residency.trace``.
* ``members``, ``flags``: a token's accesses as a list (the first ``count``) and as 0/1 per entry.
* ``resident``: 1 for entries in fast memory. # uint8 [N]
* ``key``: how much each entry deserves to stay, larger is better; unique, so that a tie never has to be
  broken by something that depends on the cache's size. It starts as N−1−i. # int64 [N]
* ``bits``: scores, fp32 and not negative, seen as integers: they have the same order. # int32 [N] or [0]
* ``ranked``: the order of a token's accesses matters, the last is the most recent (experts); otherwise
  they happen at once and ties go to the lower index (columns).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backend.compiling import compiled

LRU, LFU, RANDOM, BELADY = range(4)
NEVER = 2**31 - 1
STAMP_BITS = 40
BUCKET_SHIFT = 20
BUCKETS = 2 ** (31 - BUCKET_SHIFT)
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_DRAW_SHIFT = 24


@compiled
def nth_largest(keys: Any, count: int, nth: int) -> int:
    """Return the nth largest (from 1) of ``keys[:count]``, all different; reorders them (quickselect)."""
    low, high, target = 0, count - 1, nth - 1
    while low < high:
        first, middle, last = keys[low], keys[(low + high) >> 1], keys[high]
        pivot = max(min(first, middle), min(max(first, middle), last))
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return int(keys[target])


@compiled
def load_key(position: int, entry: int, size: int, bits: Any) -> Any:
    """Return a unique key by which members are loaded: score, then lower index; or their order."""
    if bits.shape[0] == 0:
        return -position
    return np.int64(bits[entry]) * size + size - 1 - entry


@compiled
def kth_score(bits: Any, k: int, histogram: Any, buffer: Any) -> Any:
    """Return the ``load_key`` of the k-th largest score: the exact top k have this one or a larger.

    A histogram by exponent and three bits of mantissa leaves few candidates; partitioning all scores
    instead costs three times as much in mispredicted branches.
    """
    size = bits.shape[0]
    histogram[:] = 0
    for i in range(size):
        histogram[bits[i] >> BUCKET_SHIFT] += 1
    bucket = BUCKETS - 1
    while histogram[bucket] < k:
        k -= histogram[bucket]
        bucket -= 1
    candidates = 0
    for i in range(size):
        buffer[candidates] = load_key(0, i, size, bits)
        candidates += (bits[i] >> BUCKET_SHIFT) == bucket
    return nth_largest(buffer, candidates, k)


@compiled
def draw(seed: int, clock: int, entry: int) -> Any:
    """Return 40 random bits that depend on the seed, the token and the entry alone (SplitMix64)."""
    z = np.uint64(seed) + np.uint64(_GOLDEN) * (np.uint64(clock) * np.uint64(0x100000001) + np.uint64(entry))
    for _ in range(2):  # once would leave neighbouring entries correlated
        z = z + np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
        z = z ^ (z >> np.uint64(31))
    return np.int64(z >> np.uint64(_DRAW_SHIFT))


@compiled
def fetch(t: int, bits: Any, offsets: Any, entries: Any, members: Any, count: int, flags: Any) -> int:
    """Replace ``members`` (``count`` of them) and ``flags`` by token t's; return its number of accesses."""
    if bits.shape[0] > 0:
        count = 0
        for byte in range(bits.shape[1]):
            value = bits[t, byte]
            for bit in range(8):
                i = 8 * byte + bit
                flag = (value >> (7 - bit)) & 1
                flags[i] = flag
                members[count] = i  # overwritten by the next one unless the flag is set
                count += flag
        return count
    for a in range(count):
        flags[members[a]] = 0
    first, count = offsets[t], offsets[t + 1] - offsets[t]
    for a in range(count):
        members[a] = entries[first + a]
        flags[members[a]] = 1
    return int(count)


@compiled
def touch(key: Any, members: Any, count: int, rule: int, ranked: bool, clock: int, uses: Any) -> None:
    """Renew the keys of the token's members.

    LRU: age. LFU: number of uses, kept after eviction; ranked entries with equal counts by age. Belady:
    nearest next use, ``uses[a]`` being the token that uses member a next. Random keys are drawn later.
    """
    size = key.shape[0]
    for a in range(count):
        i = members[a]
        stamp = clock * size + (a if ranked else size - 1 - i)
        if rule == LRU:
            key[i] = stamp
        elif rule == LFU and ranked:
            key[i] = (((key[i] >> STAMP_BITS) + 1) << STAMP_BITS) | stamp
        elif rule == LFU:
            key[i] += size
        elif rule == BELADY:
            key[i] = (NEVER - uses[a]) * size + size - 1 - i


@compiled
def update(
    resident: Any,
    key: Any,
    members: Any,
    count: int,
    flags: Any,
    bits: Any,
    capacity: int,
    rule: int,
    ranked: bool,
    clock: int,
    seed: int,
    buffer: Any,
) -> None:
    """Let one token's accesses change the cache: idle entries leave by their keys, the members are loaded.

    A token with more accesses than slots keeps the hits, then loads by falling score (or, without scores,
    in the order of ``members``). Belady over columns does not even load what is needed later than the rest.
    """
    size = key.shape[0]
    bypass = rule == BELADY and not ranked
    if capacity <= 0:
        return
    if count >= capacity and not bypass:
        _keep_hits_then_load(resident, members, count, flags, bits, capacity, buffer)
        return
    candidates = 0
    for i in range(size):
        if rule == RANDOM and resident[i]:
            key[i] = draw(seed, clock, i) * size + size - 1 - i
        buffer[candidates] = key[i]  # overwritten by the next one unless this one is idle
        candidates += resident[i] & (1 - flags[i])
    room = capacity if bypass else capacity - count
    for a in range(count):
        resident[members[a]] = 1
        if bypass:  # the members compete for their places too
            buffer[candidates] = key[members[a]]
            candidates += 1
    if candidates > room:
        least = nth_largest(buffer, candidates, room)
        for i in range(size):
            resident[i] &= (key[i] >= least) | (flags[i] & (not bypass))


@compiled
def _keep_hits_then_load(
    resident: Any, members: Any, count: int, flags: Any, bits: Any, capacity: int, buffer: Any
) -> None:
    size = resident.shape[0]
    room = capacity
    for i in range(size):
        resident[i] &= flags[i]
        room -= resident[i]
    new = 0
    for a in range(count):
        if not resident[members[a]]:
            buffer[new] = load_key(a, members[a], size, bits)
            new += 1
    if room <= 0 or new == 0:
        return
    least = nth_largest(buffer, new, min(room, new))
    for a in range(count):
        if not resident[members[a]] and load_key(a, members[a], size, bits) >= least:
            resident[members[a]] = 1


@compiled
def simulate(
    rows: Any,
    offsets: Any,
    entries: Any,
    uses: Any,
    bits: Any,
    resident: Any,
    key: Any,
    capacity: int,
    rule: int,
    ranked: bool,
    seed: int,
    misses: Any,
) -> None:
    """Walk a recorded trace with one cache; ``misses[t]`` becomes the misses of token t."""
    size = key.shape[0]
    members, flags, buffer = scratch(size)
    count = first = 0
    for t in range(misses.shape[0]):
        count = fetch(t, rows, offsets, entries, members, count, flags)
        for a in range(count):
            misses[t] += 1 - resident[members[a]]
        touch(key, members, count, rule, ranked, t, uses[first : first + count])
        update(
            resident,
            key,
            members,
            count,
            flags,
            bits[min(t, bits.shape[0] - 1)],
            capacity,
            rule,
            ranked,
            t,
            seed,
            buffer,
        )
        first += count


@compiled
def step(accessed: Any, resident: Any, key: Any, capacity: int, rule: int, clock: int, seed: int) -> None:
    """Serve one batch of ranked accesses, the clock-th, as :func:`simulate` would. # int32 [K]"""
    size = key.shape[0]
    members, flags, buffer = scratch(size)
    count = accessed.shape[0]
    for a in range(count):
        members[a] = accessed[a]
        flags[accessed[a]] = 1
    touch(key, members, count, rule, True, clock, np.empty(0, np.int32))
    no_scores = np.empty(0, np.int32)
    update(resident, key, members, count, flags, no_scores, capacity, rule, True, clock, seed, buffer)


@compiled
def scratch(size: int) -> Any:
    """Return ``members``, ``flags`` (rounded up to whole bytes of bits) and a buffer for keys."""
    padded = 8 * ((size + 7) // 8) + 1
    return np.empty(padded, np.int32), np.zeros(padded, np.uint8), np.empty(2 * size + 1, np.int64)


@compiled
def next_uses(rows: Any, offsets: Any, entries: Any, size: int, tokens: int, uses: Any) -> None:
    """Fill ``uses`` with the token of each access's next use, or ``NEVER``. # int32 [accesses]"""
    members, flags, _ = scratch(size)
    upcoming = np.full(size, NEVER, np.int32)
    count, last = 0, uses.shape[0]
    for t in range(tokens - 1, -1, -1):
        count = fetch(t, rows, offsets, entries, members, count, flags)
        last -= count
        for a in range(count):
            uses[last + a] = upcoming[members[a]]
            upcoming[members[a]] = t


@compiled
def select(
    scores: Any,
    gammas: Any,
    exempt: int,
    k: int,
    resident: Any,
    key: Any,
    clock: int,
    capacity: int,
    rule: int,
    seed: int,
    masks: Any,
) -> int:
    """Choose each token's top k by score, what is not resident being weighed by γ; return the hits.

    Per token, in this order: weigh with the old cache, choose, count hits with the old cache, update.

    ``scores``, ``masks``: # fp32, uint8 [T, N]. ``gammas``: # fp32 [T]. ``exempt``: how many of the
    largest scores are never weighed down. ``clock``: tokens that the sequence had before.
    """
    tokens, size = scores.shape
    members, flags, buffer = scratch(size)
    histogram = np.empty(BUCKETS, np.int32)
    weighed = np.empty(size, np.float32)
    weighed_bits = weighed.view(np.int32)
    all_bits = scores.view(np.int32)
    no_uses = np.empty(0, np.int32)
    hits = 0
    for t in range(tokens):
        bits = all_bits[t]
        least_exempt: Any = np.int64(2**62)
        if exempt > 0:
            least_exempt = kth_score(bits, min(exempt, size), histogram, buffer)
        for i in range(size):
            spared = resident[i] or (exempt > 0 and load_key(0, i, size, bits) >= least_exempt)
            weighed[i] = scores[t, i] if spared else scores[t, i] * gammas[t]
        least = kth_score(weighed_bits, k, histogram, buffer)
        count = 0
        for i in range(size):
            flag: Any = np.uint8(load_key(0, i, size, weighed_bits) >= least)
            flags[i] = flag
            masks[t, i] = flag
            members[count] = i
            count += flag
            hits += flag & resident[i]
        touch(key, members, count, rule, False, clock + t, no_uses)
        update(resident, key, members, count, flags, bits, capacity, rule, False, clock + t, seed, buffer)
    return hits
