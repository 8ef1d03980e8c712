"""Attribution of the prompt, kept for the whole decode: label-free, and it can be built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from backend.settings import setting
from backend.sparsity.attribution import Attribution
from backend.sparsity.dense_magnitude import DenseMagnitude
from backend.sparsity.label_attribution import SNIP, CorrectedGradientOutput, GradientOutput
from backend.sparsity.policy import Context, method

if TYPE_CHECKING:
    from torch import Tensor

    from backend.sparsity.dense_pass import DensePass, Units

METRICS: dict[str, Attribution] = {
    "magnitude": DenseMagnitude(),
    "gxo": GradientOutput(label="next"),
    "snip": SNIP(label="next"),
    "corrected_gxo": CorrectedGradientOutput(label="next"),
}
"""What can be summed over tokens whose successors are known."""


@method
class PromptAttribution(Attribution):
    """Sum a metric over the prompt's own tokens at prefill, and keep that mask for the whole decode.

    The labels are the prompt's own next tokens, known at prefill. With ``magnitude`` it needs no backward
    pass, and is near GRIFFIN (arXiv 2402.19427), which normalises each token's activations first.
    """

    name = "prompt_attribution"
    title = "Prompt attribution"
    summary = (
        "Sums a metric over the prompt's own tokens at prefill and keeps that mask for the whole decode."
    )
    equation = r"m = T_k\bigl(\textstyle\sum_{t \in \mathrm{prompt}} s_{t,i}\bigr)"
    limits = (
        "The prompt runs dense, and its backward pass comes before the first token: it is in the time to the "
        "first token (prompt_ms), not in that of the others. Without a prompt it keeps everything."
    )
    realisable = True
    needs_prompt: ClassVar[bool] = True
    prompt_alone: ClassVar[bool] = True

    metric: Literal["magnitude", "gxo", "snip", "corrected_gxo"] = setting(
        "snip", "What is summed over the prompt's tokens."
    )

    def scores(self, dense: DensePass) -> Units:
        """Score by the prompt alone; one row holds for every token after it."""
        from backend.sparsity.dense_pass import Units

        # The last token's label is the first one to be predicted: it is left out.
        found = METRICS[self.metric].scores(dense.of_prompt())
        return Units(_summed(found.neurons), _summed(found.heads))

    def prepare(self, dense: DensePass) -> Units:
        """Return the one mask of the prompt for every position; without a prompt, everything is kept."""
        from backend.sparsity.dense_pass import Units

        return super().prepare(dense) if dense.prompt else Units({}, {})

    def fixed_neurons(self, context: Context) -> Tensor | None:
        """Return the prompt's mask. # [n]"""
        mask = None if context.prepared is None else context.prepared.neurons.get(context.layer)
        return None if mask is None or not self.prompt_alone else mask[0, 0]


def _summed(values: dict[int, Tensor]) -> dict[int, Tensor]:
    """Sum over the tokens whose successors are in the prompt. # [B, P, N] → [B, 1, N]"""
    return {
        layer: each[:, : max(1, each.shape[1] - 1)].sum(1, keepdim=True) for layer, each in values.items()
    }
