"""Magnitude as the dense pass has it: the label-free metrics that attribution is compared with.

Unlike GLU pruning's masks, which follow the activations of the sparse run, these are of the dense run, as
every attribution's are, so that metrics differ in nothing but their formula.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from pydantic import model_validator

from backend.sparsity.attribution import Attribution, by_head
from backend.sparsity.policy import method

if TYPE_CHECKING:
    from backend.sparsity.dense_pass import DensePass, Units


@method
class DenseMagnitude(Attribution):
    """Keep the units with the largest output: ``|x_i|`` of a neuron, ``‖o_h‖₂`` of a head."""

    name = "dense_magnitude"
    title = "Output magnitude"
    summary = "Keeps the units whose output is largest in a dense pass of the same token."
    equation = r"m = T_k(|x_i|),\quad m_h = T_k(\lVert o_h \rVert_2)"

    def scores(self, dense: DensePass) -> Units:
        """Score by the dense pass's magnitudes."""
        from backend.sparsity.dense_pass import Units

        found = dense.activations()
        size = {layer: attention.head_size for layer, attention in dense.anatomy.attentions.items()}
        return Units(
            {layer: x.abs() for layer, x in found.neurons.items()},
            {layer: by_head(o, size[layer]).norm(dim=-1) for layer, o in found.heads.items()},
        )


@method
class DenseMagnitudeNorm(Attribution):
    """Keep the neurons that add most to the MLP's output, ``|x_i|·‖W_d[:,i]‖₂``."""

    name = "dense_magnitude_norm"
    title = "Output magnitude × weight norm"
    summary = "Keeps the neurons that add most to the MLP's output in a dense pass of the same token."
    equation = r"m = T_k(|x_i| \cdot \lVert W_d[:, i] \rVert_2)"

    @model_validator(mode="after")
    def _neurons_only(self) -> Self:
        if self.units != "mlp":
            raise ValueError("units must be mlp: heads have no such score")
        return self

    def scores(self, dense: DensePass) -> Units:
        """Score by the exact L2 norm of what each neuron adds."""
        from backend.sparsity.dense_pass import Units

        mlps = dense.anatomy.mlps
        found = dense.activations().neurons
        return Units({layer: x.abs() * mlps[layer].down_column_norms for layer, x in found.items()}, {})
