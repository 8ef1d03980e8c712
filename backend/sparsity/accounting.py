"""Accounting: which share of which weights the masks of a run really read.

One rule for every policy. Of a layer's MLP, with ρ_in the token's share of inputs kept and ρ_mid its share
of neurons kept:

* gate and up: ``ρ_in`` if the policy needs them before it chooses neurons, else ``ρ_in·ρ_mid`` (only the
  chosen rows); an oracle's uncharged projections count as ``ρ_in·ρ_mid`` too;
* down: ``ρ_mid``;
* what the policy reads of its own to choose (a predictor) counts as so many weights of the MLP.

A head that is dropped saves its columns of the output projection and, if it was known beforehand, its rows
of the query projection; keys and values of the token are written all the same (they are shared under GQA).

A site without a mask counts as 1. (Source: the table of arXiv 2412.01380; its released code counts an
unmasked linear as 0, which flatters GLU pruning.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, overload

from backend.sparsity.policy import Policy, Tally
from backend.sparsity.selection import row_counts

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import Anatomy


class Reading:
    """Sums of the shares read, per layer; added to by the engine, read out as densities.

    Args:
        anatomy: The model's parts and their numbers of weights.
        policy: Whose masks are accounted for.
    """

    def __init__(self, anatomy: Anatomy, policy: Policy) -> None:
        self.anatomy = anatomy
        self.policy = policy
        self.tokens = 0
        self._mlp: dict[int, float] = dict.fromkeys(anatomy.mlps, 0.0)
        self._first = min(anatomy.mlps)
        self._own = {
            layer: policy.own_weights(mlp.hidden_size, mlp.neurons) / mlp.weights
            for layer, mlp in anatomy.mlps.items()
        }
        self._attention: dict[tuple[int, Literal["attn_in", "attn_out"]], float] = {}
        self._tallies: dict[str, Tally] = {}

    def add_mlp(self, layer: int, mask_in: Tensor | None, mask_mid: Tensor | None, tokens: int) -> None:
        """Account for one call of a layer's MLP.

        Args:
            layer: The layer.
            mask_in: Inputs kept, None for all. # [B, T, d]
            mask_mid: Neurons kept, None for all. # [B, T, n]
            tokens: B·T.
        """
        self.add_shares(layer, _share(mask_in), _share(mask_mid), tokens)

    def add_shares(self, layer: int, first: float | Tensor, middle: float | Tensor, tokens: int) -> None:
        """Account for a layer's MLP by the shares of inputs and of neurons that its tokens kept.

        Args:
            layer: The layer.
            first: Share of inputs kept, one for all tokens or one each. # [B, T]
            middle: Share of neurons kept. # [B, T]
            tokens: B·T.
        """
        per_token = mlp_share(self.policy, first, middle)
        self._mlp[layer] += per_token * tokens if isinstance(per_token, float) else float(per_token.sum())
        self._mlp[layer] += self._own[layer] * tokens
        if layer == self._first:
            self.tokens += tokens

    def add_attention(self, layer: int, site: Literal["attn_in", "attn_out"], mask: Tensor | None) -> None:
        """Account for one mask at an attention site. ``mask``: # [B, T, N]"""
        if mask is None:
            return
        skipped = float((1 - row_counts(mask) / mask.shape[-1]).sum())
        self._attention[layer, site] = self._attention.get((layer, site), 0.0) + skipped

    def add_tally(self, tally: Tally) -> None:
        """Account for what a policy counted itself: hits of its caches, loads."""
        known = self._tallies.get(tally.metric)
        self._tallies[tally.metric] = tally if known is None else known + tally

    def counted(self, value_bytes: int) -> dict[str, tuple[float, str]]:
        """Return what the policy counted as metric → (value, unit).

        Args:
            value_bytes: Bytes of one weight as it ran.
        """
        return {
            tally.metric: (
                tally.part
                * (value_bytes if tally.in_weights else 1)
                / max(1, self.tokens if tally.whole is None else tally.whole),
                tally.unit,
            )
            for tally in self._tallies.values()
        }

    def layer_density(self) -> dict[int, float]:
        """Return each layer's MLP density, averaged over its tokens."""
        return {layer: read / self.tokens for layer, read in self._mlp.items()}

    @property
    def mlp_density(self) -> float:
        """Share of the MLPs' weights read per token."""
        mlps = self.anatomy.mlps
        return (
            sum(d * mlps[layer].weights for layer, d in self.layer_density().items())
            / self.anatomy.mlp_weights
        )

    @property
    def weights_read(self) -> float:
        """Weights read per token, attention, norms, head, one embedding row and the policy's extra reads."""
        skipped = (1 - self.mlp_density) * self.anatomy.mlp_weights
        for (layer, site), share in self._attention.items():
            attention = self.anatomy.attentions[layer]
            weights = attention.in_weights if site == "attn_in" else attention.out_weights
            if site == "attn_out" and self.policy.whole_heads:
                weights += attention.query_weights
            skipped += weights * share / self.tokens
        return self.anatomy.weights_per_token * (1 + self.policy.extra_reads) - skipped

    def bytes_per_token(self, value_bytes: float) -> float:
        """Return the bytes of what was read per token.

        Args:
            value_bytes: Bytes of one of the model's weights as it ran. A policy's own weights are as wide as
                the arithmetic: those of an int8 model too, whose activations are float32.
        """
        own = sum(share * self.anatomy.mlps[layer].weights for layer, share in self._own.items())
        return (self.weights_read - own) * value_bytes + own * (4 if value_bytes == 1 else value_bytes)

    @property
    def model_density(self) -> float:
        """Share of all weights that a dense token reads which were read."""
        return self.weights_read / self.anatomy.weights_per_token

    def merge(self, other: Reading) -> None:
        """Add another reading of the same policy and model."""
        self.tokens += other.tokens
        for layer, read in other._mlp.items():
            self._mlp[layer] += read
        for key, skipped in other._attention.items():
            self._attention[key] = self._attention.get(key, 0.0) + skipped
        for tally in other._tallies.values():
            self.add_tally(tally)


@overload
def mlp_share(policy: Policy, first: float, middle: float) -> float: ...
@overload
def mlp_share(policy: Policy, first: float | Tensor, middle: float | Tensor) -> float | Tensor: ...
def mlp_share(policy: Policy, first: float | Tensor, middle: float | Tensor) -> float | Tensor:
    """Return the share of an MLP's weights that a policy reads.

    Args:
        policy: The policy.
        first: Share of inputs kept. # one number, or one a token
        middle: Share of neurons kept.
    """
    charged = policy.needs - policy.uncharged
    rows = sum(first if name in charged else first * middle for name in ("gate", "up"))
    return (rows + middle) / 3


def _share(mask: Tensor | None) -> float | Tensor:
    return 1.0 if mask is None else row_counts(mask) / mask.shape[-1]
