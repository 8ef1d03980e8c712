"""Policies that keep a share of an MLP's neurons by one score; their density follows from what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from backend.errors import UserError
from backend.settings import setting
from backend.sparsity.policy import Activations, Context, Policy, Ranked, Ranking, Site
from backend.sparsity.selection import kept_count, top_k_mask

if TYPE_CHECKING:
    from torch import Tensor


class NeuronPruning(Policy):
    """Keep the ``keep`` share of neurons with the largest score, per token and layer.

    Projections that the score needs are read for all neurons (unless an oracle leaves them uncharged), so
    with f such projections the MLP density is ``f/3 + (1 − f/3)·keep``; f/3 is its floor.
    """

    sweep_setting: ClassVar[str | None] = "keep"

    ranked: ClassVar[Ranked | None] = None
    """The activation whose magnitude is the score; None where ``score`` says otherwise."""

    keep: float = setting(
        0.5, "Share of neurons kept per token.", unit="share of neurons", symbol="ρ", gt=0, le=1
    )

    def score(self, activations: Activations, context: Context) -> Tensor:
        """Return the neurons' scores, the largest kept: magnitudes of ``ranked``. # [B, T, n]"""
        assert self.ranked is not None, "a policy that ranks by no one activation says its own score"
        values: Tensor = getattr(activations, self.ranked)
        return values.abs()

    def mlp_mid(self, activations: Activations, context: Context) -> Tensor | None:
        """Keep the k = max(1, round(keep·n)) neurons with the largest score. # [B, T, n]"""
        scores = self.score(activations, context)
        return top_k_mask(scores, kept_count(self.keep, scores.shape[-1]))

    def as_ranking(self, site: Site, context: Context) -> Ranking | None:
        """Rank neurons by the magnitude of one activation, where that is the score."""
        if site != "mlp_mid" or self.ranked is None:
            return None
        assert context.mlp is not None
        return Ranking(self.ranked, kept_count(self.keep, context.mlp.neurons))

    @classmethod
    def density_floor(cls) -> float:
        """Return the MLP density below which this method cannot go: what it reads for its score."""
        return len(cls.needs - cls.uncharged) / 3

    def expected_density(self) -> float | None:
        """Return the MLP density these settings stand for (before rounding k)."""
        floor = self.density_floor()
        return floor + (1 - floor) * self.keep

    @classmethod
    def at_density(cls, density: float) -> Self:
        """Return this policy with the ``keep`` that reads the given share of MLP weights.

        Raises:
            UserError: The method reads more than that for its score alone.
        """
        floor = cls.density_floor()
        if not floor < density <= 1:
            raise UserError(
                f"{cls.title} cannot reach an MLP density of {density:.3g}: it reads {floor:.3g} before it "
                "has chosen its neurons."
            )
        return cls(keep=min(1.0, (density - floor) / (1 - floor)))
