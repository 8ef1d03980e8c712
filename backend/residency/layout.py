"""Layout: in how many reads, of which size, one entry comes from Flash; bundling makes fewer and larger ones.

Source: Alizadeh et al., "LLM in a flash", arXiv 2312.11514, section 3.2: the row of gate and up and the
column of down that belong to one neuron lie together, in one chunk of 3·d values. Where a mask serves gate
and up columns only (DIP's input), the two columns of one input entry make a chunk of 2·n values.
Bundling changes no miss, only the reads that serve it; a Flash is faster at larger reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["gate", "up", "down"]


@dataclass(frozen=True)
class Layout:
    """How one entry of a hook is stored.

    Attributes:
        parts: The projections that the hook's mask selects a row or column of.
        part_values: Weights of the entry in each of them: n for an input's column, d for a neuron's.
        bundled: All parts lie in one chunk.
    """

    parts: tuple[Part, ...]
    part_values: int
    bundled: bool = False

    @property
    def reads_per_entry(self) -> int:
        """Separate reads that a miss costs."""
        return 1 if self.bundled else len(self.parts)

    @property
    def values_per_entry(self) -> int:
        """Weights that a miss loads and a slot holds."""
        return len(self.parts) * self.part_values

    def bytes_per_entry(self, bits: float) -> float:
        """Return the bytes of one entry at ``bits`` a weight."""
        return self.values_per_entry * bits / 8

    def read_bytes(self, bits: float) -> float:
        """Return the bytes of one read at ``bits`` a weight."""
        return self.bytes_per_entry(bits) / self.reads_per_entry


def input_layout(neurons: int, *, bundled: bool = False) -> Layout:
    """Return the layout of an MLP's input entries: columns of gate and up, ``neurons`` weights each."""
    return Layout(("gate", "up"), neurons, bundled)


def neuron_layout(
    hidden_size: int, parts: tuple[Part, ...] = ("gate", "up", "down"), *, bundled: bool = False
) -> Layout:
    """Return the layout of neurons: rows of gate and up, columns of down, ``hidden_size`` weights each.

    Args:
        hidden_size: d.
        parts: The projections that the mask skips: all three where it is known beforehand (a predictor),
            ``("down",)`` for DIP's second mask.
        bundled: The parts lie together, in one chunk of len(parts)·d values.
    """
    return Layout(parts, hidden_size, bundled)


def expert_layout(hidden_size: int, neurons: int, *, bundled: bool = True) -> Layout:
    """Return the layout of one expert: its three matrices, ``hidden_size``·``neurons`` weights each."""
    return Layout(("gate", "up", "down"), hidden_size * neurons, bundled)
