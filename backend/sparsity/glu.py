"""GLU pruning, its oracle, and magnitude × weight norm: neurons chosen by their own activation.

Source: Federici et al., arXiv 2412.01380 (GLU pruning and its oracle); magnitude × norm is the exact L2
contribution of one neuron to the MLP's output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from backend.sparsity.neuron_pruning import NeuronPruning
from backend.sparsity.policy import Activations, Context, Ranking, Site, method

if TYPE_CHECKING:
    from torch import Tensor

DIP_PAPER = "Federici et al., arXiv 2412.01380"


@method
class GLUPruning(NeuronPruning):
    """Keep the neurons with the largest ``|a|``, a computed densely; only columns of W_d are skipped."""

    name = "glu_pruning"
    title = "GLU pruning"
    summary = "Computes every neuron, then reads only the down projection's columns of the largest ones."
    equation = r"m = T_k(|a|),\quad a = \mathrm{act}(W_g x) \odot W_u x,\quad y = W_d (m \odot a)"
    density_formula = r"(2 + \rho)/3"
    paper = DIP_PAPER
    limits = "Gate and up are read whole, so its MLP density never falls below 2/3."
    needs = frozenset({"gate", "up"})
    ranked = "neurons"


@method
class GLUOracle(GLUPruning):
    """GLU pruning's masks, with the rows of W_g and W_u counted as skipped too: an upper bound."""

    name = "glu_oracle"
    title = "GLU oracle"
    summary = "GLU pruning as if the mask were known beforehand: an upper bound that no kernel can reach."
    density_formula = r"\rho"
    limits = "An oracle: it needs the very activations it counts as skipped. Never on the front."
    realisable = False
    uncharged = frozenset({"gate", "up"})


@method
class MagnitudeNorm(GLUPruning):
    """GLU pruning with ``|a_i|·‖W_d[:,i]‖₂`` as the score."""

    name = "magnitude_norm"
    title = "Magnitude × norm"
    summary = "GLU pruning that weighs each neuron by the norm of its column in the down projection."
    equation = r"m = T_k\bigl(|a_i| \cdot \lVert W_d[:, i] \rVert_2\bigr),\quad y = W_d (m \odot a)"

    def score(self, activations: Activations, context: Context) -> Tensor:
        """Score neurons by the exact L2 norm of what each adds to the output. # [B, T, n]"""
        assert context.mlp is not None
        return super().score(activations, context).float() * context.mlp.down_column_norms

    def as_ranking(self, site: Site, context: Context) -> Ranking | None:
        """Rank neurons by their magnitude, weighed by the norms."""
        found = super().as_ranking(site, context)
        assert context.mlp is not None
        return found and replace(found, weights=context.mlp.down_column_norms)
