"""CATS: neurons whose gate exceeds a threshold that was calibrated per layer (arXiv 2404.08763)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from backend.sparsity.calibrated import Calibrated
from backend.sparsity.neuron_pruning import NeuronPruning
from backend.sparsity.policy import Activations, Context, Observer, method

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import GatedMLP

DROPPED_BITS = 12
"""Magnitudes are counted by the leading bits of their fp32 form: bins 2⁻¹¹ of their value wide."""
BINS = 0x7F800000 >> DROPPED_BITS
"""Bins below infinity, whose own is the last."""


@method
class CATS(Calibrated, NeuronPruning):
    """Keep the neurons with ``|act(W_g x)|`` of at least the layer's (1 − ρ) quantile on a calibration text.

    How many are kept varies from token to token; the density is measured, not set.
    """

    name = "cats"
    title = "CATS"
    summary = (
        "Reads the gate whole, then the up rows and down columns whose gate exceeds the layer's threshold."
    )
    equation = r"m = |\mathrm{act}(W_g x)| \ge t_l,\quad t_l = Q_{1-\rho}(|\mathrm{act}(W_g x)|)"
    density_formula = r"(1 + 2\rho)/3"
    paper = "Lee et al., arXiv 2404.08763"
    limits = (
        "The gate is read whole, so its MLP density never falls below 1/3. Off the calibration text the "
        "share kept is near ρ, not ρ: compare it at its measured density."
    )
    needs: ClassVar = frozenset({"gate"})
    threshold_kept: ClassVar[bool] = True

    def mlp_mid(self, activations: Activations, context: Context) -> Tensor | None:
        """Keep the neurons whose gate reaches the threshold. # [B, T, n]"""
        assert activations.gate is not None
        threshold = self.fitted(context, "threshold").to(activations.gate.device)
        mask: Tensor = activations.gate.abs() >= threshold
        return mask

    def observer(self) -> Observer:
        """Return an observer that counts the gates' magnitudes."""
        return GateObserver(self.keep)


class GateObserver:
    """Counts ``|act(W_g x)|`` per layer in fine bins, and returns its (1 − keep) quantile."""

    def __init__(self, keep: float) -> None:
        self.keep = keep
        self.counts: dict[int, Any] = {}

    def observe(self, mlp: GatedMLP, activations: Activations) -> None:
        """Count a sequence's gates: memory grows with the layers, not with the tokens."""
        import numpy as np

        assert activations.gate is not None
        bits = activations.gate.abs().float().cpu().numpy().view(np.uint32).ravel()
        found = np.bincount(np.minimum(bits >> DROPPED_BITS, BINS), minlength=BINS + 1)
        self.counts[mlp.layer] = self.counts.get(mlp.layer, 0) + found

    def fit(self) -> dict[str, Tensor]:
        """Return "layer.threshold" of every layer: the lower edge of the bin that the quantile is in."""
        import numpy as np
        import torch

        found: dict[str, Tensor] = {}
        for layer, counts in self.counts.items():
            dropped = round((1 - self.keep) * int(counts.sum()))
            place = int(np.searchsorted(counts.cumsum(), dropped, side="right")) if dropped else 0
            edge = np.array([place << DROPPED_BITS], np.uint32).view(np.float32)
            found[f"{layer}.threshold"] = torch.tensor(float(edge[0]))
        return found
