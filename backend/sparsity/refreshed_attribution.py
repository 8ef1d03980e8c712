"""Attribution renewed every K tokens from the tokens that are known then: label-free, and it can be built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from backend.settings import setting
from backend.sparsity.policy import method
from backend.sparsity.prompt_attribution import METRICS, PromptAttribution

if TYPE_CHECKING:
    from torch import Tensor

    from backend.sparsity.dense_pass import DensePass, Units


@method
class RefreshedAttribution(PromptAttribution):
    """Every K tokens, sum a metric over the K tokens before, whose successors are known; keep that mask.

    Each renewal is a dense forward and a backward pass over K tokens at once. Either reads every weight once
    (gradients of activations only, none of weights), so a token's share is 2/K of what a dense token reads;
    it is counted in the model's density and bytes, not in the masks' own density.
    """

    name = "refreshed_attribution"
    title = "Refreshed attribution"
    summary = "Renews the mask every K tokens from the attribution of the K tokens before."
    equation = (
        r"m_t = T_k\bigl(\textstyle\sum_{u = s-K}^{s-1} s_{u,i}\bigr),\quad "
        r"s = K \lfloor t / K \rfloor,\quad \text{extra reads } 2/K"
    )
    limits = (
        "The renewal's 2/K of a dense token's reads are in model density and bytes, not in MLP density. Its "
        "dense pass is that of the dense model's own keys and values. Without a prompt it keeps everything."
    )

    prompt_alone: ClassVar[bool] = False

    every: int = setting(16, "Tokens between two renewals.", unit="tokens", symbol="K", ge=1)

    @property
    def extra_reads(self) -> float:
        """Return 2/K: what a renewal reads, in dense tokens a token."""
        return 2 / self.every

    def scores(self, dense: DensePass) -> Units:
        """Score each position after the prompt by the K known positions before its chunk."""
        from backend.sparsity.dense_pass import DensePass, Units

        whole = DensePass(dense.model, dense.anatomy, dense.input_ids)
        found = METRICS[self.metric].scores(whole)
        return Units(self._chunks(found.neurons, dense.prompt), self._chunks(found.heads, dense.prompt))

    def _chunks(self, values: dict[int, Tensor], prompt: int) -> dict[int, Tensor]:
        """Sum over what precedes each chunk. # [B, T, N] → [B, T − prompt, N]"""
        import torch

        def chunks(each: Tensor) -> Tensor:
            length = each.shape[1]
            parts = []
            for start in range(prompt, length, self.every):
                known = each[:, max(0, start - self.every) : start].sum(1, keepdim=True)
                parts.append(known.expand(-1, min(self.every, length - start), -1))
            return torch.cat(parts, dim=1)

        return {layer: chunks(each) for layer, each in values.items()}
