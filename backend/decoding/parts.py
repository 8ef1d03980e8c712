"""What one decoded token's time went to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Parts:
    """Seconds of one token.

    Attributes:
        mlp: The gated MLPs, choosing included.
        attention: The attention blocks, their norms included.
        head: The final norm and the head.
        total: The whole step; what is in no part is overhead (the embedding, calls between the kernels).
    """

    mlp: float
    attention: float
    head: float
    total: float

    @property
    def overhead(self) -> float:
        """Seconds in none of the parts."""
        return self.total - self.mlp - self.attention - self.head
