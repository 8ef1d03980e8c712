"""The experts in memory: a cache's slots, filled from the store's file as tokens need them."""

from __future__ import annotations

import mmap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from backend.decoding.direct_reader import DirectReader
from backend.decoding.expert_file import LayerRecords
from backend.decoding.kernels.linear import Indices
from backend.decoding.prefetched import Prefetched
from backend.errors import UserError
from backend.residency import Eviction, OnlineCache


@dataclass
class Counters:
    """What a store did.

    Attributes:
        batches: Batches served: one a token and layer.
        accesses: Experts that they used.
        misses: Of them, those that had to be loaded.
        bytes_read: Bytes read from disk, padding included.
        waited_s: Seconds that computing waited for them.
        guessable: Experts used in layers that had been guessed early.
        guessed: Of them, those that the guess named.
        read_ahead: Experts read on a guess.
        taken_ahead: Of them, those that a miss took.
    """

    batches: int = 0
    accesses: int = 0
    misses: int = 0
    bytes_read: int = 0
    waited_s: float = 0.0
    guessable: int = 0
    guessed: int = 0
    read_ahead: int = 0
    taken_ahead: int = 0

    def __add__(self, other: Counters) -> Counters:
        """Add what was done elsewhere."""
        return Counters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __sub__(self, before: Counters) -> Counters:
        """Return what was done since ``before``."""
        return Counters(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))


class ResidentExperts:
    """One cache and the memory of its slots.

    Entry e of the cache is the e-th expert of ``records``, layer after layer: N experts of one layer, or all
    experts of a model for a cache that its layers share.

    Args:
        reader: The store's file.
        records: The layers whose experts share the slots.
        capacity: C, the slots.
        eviction: Which idle expert gives way.
        seed: Of the random rule.
        readers: Threads for reads under way at once; None reads one after the other.
        prefetched: What is read ahead; None: nothing is.

    Attributes:
        cache: Which experts are resident.
        arena: The slots, one after the other, page-aligned.
        stride: Bytes of a slot.
        counters: What was done so far.
    """

    def __init__(
        self,
        reader: DirectReader,
        records: Sequence[LayerRecords],
        capacity: int,
        eviction: Eviction,
        seed: int = 0,
        readers: ThreadPoolExecutor | None = None,
        prefetched: Prefetched | None = None,
    ) -> None:
        self._reader, self._readers, self._prefetched = reader, readers, prefetched
        self._offsets = np.concatenate(
            [each.offset + np.arange(each.experts) * each.stride for each in records]
        )
        self._lengths = np.repeat([each.stride for each in records], [each.experts for each in records])
        size = len(self._offsets)
        self.cache = OnlineCache(size, capacity, eviction, seed)
        self.stride = int(self._lengths.max())
        self.counters = Counters()
        self._memory = reserved(self.cache.capacity * self.stride)
        self.arena = memoryview(self._memory)
        self._slot_of: NDArray[np.int64] = np.full(size, -1, np.int64)
        self._free = list(range(self.cache.capacity))[::-1]

    def serve(self, experts: Indices, layer: int = 0) -> Indices:
        """Return the slots of a token's experts, loading those that are missing.

        Args:
            experts: Entries of the cache, none twice, the highest rank first. # [K]
            layer: Whose experts they are, for what was read ahead.

        Raises:
            UserError: There are more of them than slots, or the file cannot be read.
        """
        step = self.cache.access(experts)
        counted = self.counters
        counted.batches += 1
        counted.accesses += len(experts)
        if len(step.loaded):
            counted.misses += len(step.loaded)
            begun = time.perf_counter()
            self._load(step.loaded, step.evicted, layer)
            counted.waited_s += time.perf_counter() - begun
        if self._prefetched is not None:
            self._prefetched.drop(layer)
        return self._slot_of[experts]

    def expect(self, experts: Indices, layer: int) -> None:
        """Begin to read those of the experts that are not resident. # [K]"""
        if self._prefetched is not None:
            for entry in experts[self.cache.resident[experts] == 0].tolist():
                self._prefetched.start(layer, entry, int(self._lengths[entry]), self._read)

    def _load(self, loaded: Indices, evicted: Indices, layer: int) -> None:
        self._free.extend(self._slot_of[evicted].tolist())
        self._slot_of[evicted] = -1
        entries = loaded.tolist()
        slots = [self._free.pop() for _ in entries]
        places = [
            self._place(slot, int(self._lengths[entry])) for entry, slot in zip(entries, slots, strict=True)
        ]
        missing = [
            (entry, place)
            for entry, place in zip(entries, places, strict=True)
            if self._prefetched is None or not self._prefetched.take(layer, entry, place)
        ]
        if self._readers is None or len(missing) < 2:
            for entry, place in missing:
                self._read(entry, place)
        else:
            list(self._readers.map(self._read, *zip(*missing, strict=True)))
        self.counters.bytes_read += sum(len(place) for _, place in missing)
        self._slot_of[loaded] = slots

    def _place(self, slot: int, length: int) -> memoryview:
        start = slot * self.stride
        return self.arena[start : start + length]

    def _read(self, entry: int, place: memoryview) -> None:
        self._reader.read(place, int(self._offsets[entry]))


def reserved(size: int) -> mmap.mmap:
    """Return page-aligned memory of our own, present at once, so that no load pays for its first touch."""
    from backend.models.loading import free_memory

    free = free_memory("cpu")
    if size > free:
        raise UserError(
            f"The slots take {size / 1e9:.2f} GB of memory and {free / 1e9:.2f} GB are free; choose fewer "
            "slots."
        )
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
    return mmap.mmap(-1, size, flags=flags)
