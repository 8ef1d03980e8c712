"""Up pruning: neurons chosen by their up projection alone (arXiv 2412.01380; COUNTDOWN's M variant)."""

from __future__ import annotations

from backend.sparsity.neuron_pruning import NeuronPruning
from backend.sparsity.policy import method


@method
class UpPruning(NeuronPruning):
    """Keep the neurons with the largest ``|W_u x|``; rows of W_g and columns of W_d are skipped."""

    name = "up_pruning"
    title = "Up pruning"
    summary = (
        "Reads the up projection whole, then only the gate rows and down columns of its largest entries."
    )
    equation = r"m = T_k(|W_u x|),\quad y = W_d (m \odot a)"
    density_formula = r"(1 + 2\rho)/3"
    paper = "Federici et al., arXiv 2412.01380; COUNTDOWN-M, arXiv 2505.17701"
    limits = "The up projection is read whole, so its MLP density never falls below 1/3."
    needs = frozenset({"up"})
    ranked = "up"
