"""Dense passes kept between the cells of a run, as far as memory allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.sparsity.dense_pass import DensePass

LIMIT_BYTES = 4 * 2**30


@dataclass
class DensePasses:
    """Dense passes by sequence, of one evaluation at a time.

    A sweep goes through all sequences once a cell: to drop the oldest would drop each just before it is asked
    for again. So those that came first are kept, and what does not fit is made anew each time.

    Attributes:
        limit_bytes: How much may be kept; the pass that crosses it is the last that is.
    """

    limit_bytes: int = LIMIT_BYTES
    _owner: object = None
    _kept: dict[int, DensePass] = field(default_factory=dict, repr=False)

    def of(self, owner: object, index: int, make: Callable[[], DensePass]) -> DensePass:
        """Return one sequence's dense pass.

        Args:
            owner: The evaluation's reference; passes of another one are let go.
            index: The sequence's number.
            make: Makes an empty pass.
        """
        if self._owner is not owner:
            self.clear()
            self._owner = owner
        if index in self._kept:
            return self._kept[index]
        found = make()
        if sum(each.nbytes for each in self._kept.values()) < self.limit_bytes:
            self._kept[index] = found
        return found

    def clear(self) -> None:
        """Let every pass go."""
        self._owner = None
        self._kept.clear()
