"""Gate pruning: neurons chosen by their gate alone (arXiv 2412.01380)."""

from __future__ import annotations

from backend.sparsity.glu import DIP_PAPER
from backend.sparsity.neuron_pruning import NeuronPruning
from backend.sparsity.policy import method


@method
class GatePruning(NeuronPruning):
    """Keep the neurons with the largest ``|act(W_g x)|``; rows of W_u and columns of W_d are skipped."""

    name = "gate_pruning"
    title = "Gate pruning"
    summary = "Reads the gate whole, then only the up rows and down columns of the most open gates."
    equation = r"m = T_k(|\mathrm{act}(W_g x)|),\quad y = W_d (m \odot a)"
    density_formula = r"(1 + 2\rho)/3"
    paper = DIP_PAPER
    limits = "The gate is read whole, so its MLP density never falls below 1/3."
    needs = frozenset({"gate"})
    ranked = "gate"
