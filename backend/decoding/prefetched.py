"""Experts read ahead of their layer, into memory beside the slots, while the layer before them computes.

The cache does not know of them: what is evicted, and what counts as a miss, is as without. A miss that was
read ahead is copied into its slot instead of being waited for; what nobody takes is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

Read = Callable[[int, memoryview], None]
"""Reads an entry into a buffer."""


@dataclass
class Coming:
    """An expert on its way.

    Attributes:
        buffer: Which buffer it comes into.
        length: Its bytes.
        reading: The read.
    """

    buffer: int
    length: int
    reading: Future[None]


class Prefetched:
    """Buffers for experts read ahead, by threads of their own.

    Args:
        memory: The buffers, one after the other, page-aligned.
        stride: Bytes of a buffer.
        readers: Threads that read.

    Attributes:
        started: Reads begun ahead and not given up before they began.
        taken: Of them, those that a miss took.
        bytes_read: Bytes of those that were begun.
    """

    def __init__(self, memory: memoryview, stride: int, readers: int) -> None:
        self.started = self.taken = self.bytes_read = 0
        self._memory, self._stride = memory, stride
        self._pool = ThreadPoolExecutor(readers)
        self._free = list(range(len(memory) // stride))
        self._coming: dict[tuple[int, int], Coming] = {}
        self._leaving: list[Coming] = []

    @property
    def bytes(self) -> int:
        """Bytes of the buffers."""
        return len(self._memory)

    def start(self, layer: int, entry: int, length: int, read: Read) -> None:
        """Begin to read an expert; nothing happens if it is coming already, or if no buffer is free.

        Args:
            layer: Whose expert it is.
            entry: The expert.
            length: Bytes to read.
            read: Reads it.
        """
        self._collect()
        if (layer, entry) in self._coming or not self._free:
            return
        buffer = self._free.pop()
        reading = self._pool.submit(read, entry, self._at(buffer, length))
        self._coming[layer, entry] = Coming(buffer, length, reading)
        self.started += 1
        self.bytes_read += length

    def take(self, layer: int, entry: int, slot: memoryview) -> bool:
        """Fill a slot from what was read ahead, waiting for its end; False if it was not."""
        found = self._coming.pop((layer, entry), None)
        if found is None:
            return False
        found.reading.result()
        slot[:] = self._at(found.buffer, len(slot))
        self._free.append(found.buffer)
        self.taken += 1
        return True

    def drop(self, layer: int) -> None:
        """Give up what was read ahead for a layer and not taken."""
        for key in [key for key in self._coming if key[0] == layer]:
            left = self._coming.pop(key)
            if left.reading.cancel():
                self._free.append(left.buffer)
                self.started -= 1
                self.bytes_read -= left.length
            else:
                self._leaving.append(left)

    def close(self) -> None:
        """Wait for reads under way and stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _at(self, buffer: int, length: int) -> memoryview:
        start = buffer * self._stride
        return self._memory[start : start + length]

    def _collect(self) -> None:
        """Take back buffers whose reads nobody waits for, once they have ended."""
        self._free += [left.buffer for left in self._leaving if left.reading.done()]
        self._leaving = [left for left in self._leaving if not left.reading.done()]
