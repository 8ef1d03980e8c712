"""Where the weights of experts lie that a token computes with: in the slots of a store, or in the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.decoding.expert_layers import ExpertLayer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class SlotWeights:
    """The parts of the experts in S places.

    Attributes:
        rows: Each part's rows, one a place; several parts may share them. # [S, ≥ weights of the part]
        starts: Where the part begins in a row.
        shapes: The part's shape in one expert.
    """

    rows: dict[str, Tensor]
    starts: dict[str, int]
    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def in_slots(cls, layer: ExpertLayer, arena: memoryview, stride: int) -> SlotWeights:
        """Return the weights of a store's slots: records as :mod:`backend.decoding.expert_file` lays them.

        Args:
            layer: Whose experts the slots will hold.
            arena: The slots, one after the other.
            stride: Bytes of a slot.
        """
        import torch

        size = layer.parameter(layer.parts[0]).element_size()
        rows = torch.frombuffer(arena, dtype=layer.dtype).view(-1, stride // size)
        starts, at = {}, 0
        for part in layer.parts:
            starts[part] = at
            at += layer.parameter(part)[0].numel()
        return cls(dict.fromkeys(layer.parts, rows), starts, layer.shapes)

    @classmethod
    def in_model(cls, layer: ExpertLayer) -> SlotWeights:
        """Return the model's own weights, expert e in place e."""
        rows = {part: layer.parameter(part).detach().reshape(layer.experts, -1) for part in layer.parts}
        return cls(rows, dict.fromkeys(layer.parts, 0), layer.shapes)

    def part(self, name: str, slot: int) -> Tensor:
        """Return a part of the expert in a place, a view."""
        shape = self.shapes[name]
        count = 1
        for side in shape:
            count *= side
        start = self.starts[name]
        return self.rows[name][slot, start : start + count].view(shape)
