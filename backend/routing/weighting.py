r"""How a router's logits become ranks and weights: the formulas of the families, found and not assumed.

With logits z ∈ R^N and the chosen experts S:

* most families: ``w_i = s_i`` with ``s = softmax(z)``, divided by ``Σ_S s`` where the model renormalises;
* granite, gpt-oss: a softmax over the chosen logits alone, which is the same thing;
* DeepSeek-V3's line and LFM2: ``s = sigmoid(z)``; they select on ``s + bias``, some inside the best groups;
* Phi-MoE: sparsemixer (arXiv 2409.12136), a masked softmax for each of two experts.

Whether a model renormalises, by what floor, and by which factor it scales is told by trial: the formula must
give the model's own weights, bit for bit, on the model's own experts. (A renormalisation that the model does
not make would multiply its experts' outputs; no flag of a config is trusted with that.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Score = Literal["softmax", "sigmoid"]
Normalise = Literal["none", "sum", "sum+1e-20", "sum+1e-6", "floored sum", "softmax"]
Groups = Literal["best", "best two"]


@dataclass(frozen=True)
class Weighting:
    """From logits and chosen experts to weights.

    Attributes:
        score: s of each expert.
        normalise: What the chosen scores are divided by; "softmax": over the chosen logits, no scores.
        scale: Factor on the weights (``routed_scaling_factor``).
        floor: Least divisor of "floored sum" (Ernie 4.5).
    """

    score: Score
    normalise: Normalise
    scale: float = 1.0
    floor: float = 0.0

    def scores(self, logits: Tensor) -> Tensor:
        """Return s of every expert, in the precision that the model takes. # [T, N] → [T, N]"""
        import torch

        return logits.sigmoid() if self.score == "sigmoid" else logits.softmax(-1, dtype=torch.float)

    def weights(self, logits: Tensor, chosen: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the weights of chosen experts, from the original logits.

        Args:
            logits: The router's. # [T, N]
            chosen: Experts. # [T, K]
            kept: Which slots are used; the others weigh nothing and take no part in the sum. # [T, K] or None
        """
        if self.normalise == "softmax":
            values = logits.gather(1, chosen)
            if kept is not None:
                values = values.masked_fill(~kept, float("-inf"))
            return values.softmax(-1) * self.scale
        values = self.scores(logits).gather(1, chosen)
        if kept is not None:
            values = values * kept
        return self._normalised(values) * self.scale

    def _normalised(self, values: Tensor) -> Tensor:
        total = values.sum(-1, keepdim=True)
        if self.normalise == "sum":
            return values / total
        if self.normalise == "sum+1e-20":
            return values / (total + 1e-20)
        if self.normalise == "sum+1e-6":
            return values / (total + 1e-6)
        if self.normalise == "floored sum":
            return values / total.clamp(min=self.floor)
        return values


@dataclass(frozen=True)
class SparseMixer:
    """Phi-MoE's weights: for each expert a softmax over what lies in a band below it.

    The second expert's band is taken among what the first left. An expert that was promoted is taken as
    the maximum of its step: what ranks above it is left out. It then weighs nearly 1, as a maximum does.

    Attributes:
        jitter: ε; the band holds what is within 2ε, relative.
    """

    jitter: float
    score: Score = "softmax"

    def scores(self, logits: Tensor) -> Tensor:
        """Return the softmax of the logits: how likely each expert is. # [T, N] → [T, N]"""
        import torch

        return logits.softmax(-1, dtype=torch.float)

    def weights(self, logits: Tensor, chosen: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the weights of chosen experts; arguments as for :meth:`Weighting.weights`."""
        import torch

        found = []
        left = logits
        for slot in range(chosen.shape[1]):
            expert = chosen[:, slot : slot + 1]  # [T, 1]
            top = logits.gather(1, expert)
            outside = ((top - logits) / logits.abs().clamp(min=top)) > 2 * self.jitter
            above = (left > top).scatter(1, expert, False)
            gates = left.masked_fill(outside | above, float("-inf")).softmax(-1)
            found.append(gates.gather(1, expert))
            left = left.scatter(1, expert, float("-inf"))
        weights = torch.cat(found, 1)
        # An unused slot repeats an expert, which is gone when its turn comes: no number, so not times 0.
        return weights if kept is None else weights.masked_fill(~kept, 0.0)


@dataclass(frozen=True)
class Selection:
    """From logits to the scores by which experts are ranked; −inf for those that may not be chosen.

    Attributes:
        by: What is ranked: the logits, or scores in (0, 1).
        biased: A bias is added to the scores for selection alone.
        groups: How a group of experts is scored, where only some groups are open.
        group_count: Groups that the experts form, in order.
        open_groups: Groups that a token may choose from.
    """

    by: Literal["logits", "softmax", "sigmoid"]
    biased: bool = False
    groups: Groups | None = None
    group_count: int = 1
    open_groups: int = 1

    def scores(self, logits: Tensor, bias: Tensor | None) -> Tensor:
        """Return what experts are ranked by, fp32. # [T, N] → [T, N]"""
        import torch

        if self.by == "logits":
            ranked = logits.float()
        else:
            ranked = (
                logits.sigmoid().float() if self.by == "sigmoid" else logits.softmax(-1, dtype=torch.float)
            )
        if self.biased:
            assert bias is not None
            ranked = ranked + bias.float().reshape(-1)
        return ranked if self.groups is None else self._inside_open_groups(ranked)

    def _inside_open_groups(self, ranked: Tensor) -> Tensor:
        import torch

        grouped: Tensor = ranked.unflatten(-1, (self.group_count, -1))  # [T, G, N/G]
        best = grouped.topk(1 if self.groups == "best" else 2, dim=-1).values.sum(-1)
        shut = torch.ones_like(best, dtype=torch.bool)
        shut.scatter_(1, best.topk(self.open_groups, dim=-1, sorted=False).indices, False)
        return grouped.masked_fill(shut[..., None], float("-inf")).flatten(1)


def selection_bias(router: Any, arguments: tuple[Any, ...], experts: int) -> Tensor | None:
    """Return the bias that a router selects by: its own, or handed to it beside the hidden states. # [N]"""
    import torch

    owners = [router, *router.children()]
    own = [getattr(owner, "e_score_correction_bias", None) for owner in owners]
    for found in (*own, *arguments[1:]):
        if isinstance(found, torch.Tensor) and found.numel() == experts:
            return found
    return None


def find_weighting(
    router: Any, logits: Tensor, weights: Tensor, chosen: Tensor
) -> Weighting | SparseMixer | None:
    """Return the formula that makes the model's own weights from its logits, bit for bit; None if none does.

    Args:
        router: The router's module; a factor or a floor is looked up there, and tried with and without.
        logits: # [T, N]
        weights: # [T, K]
        chosen: # [T, K]
    """
    import torch

    for formula in _weightings(router, chosen.shape[1]):
        if torch.equal(formula.weights(logits, chosen).to(weights.dtype), weights):
            return formula
    return None


def _weightings(router: Any, k: int) -> Iterator[Weighting | SparseMixer]:
    if (jitter := getattr(router, "router_jitter_noise", None)) is not None and k == 2:
        yield SparseMixer(float(jitter))
    floor = getattr(router, "norm_min", None)
    if floor is not None:
        yield Weighting("softmax", "floored sum", floor=float(floor))
    scales = dict.fromkeys((float(getattr(router, "routed_scaling_factor", None) or 1.0), 1.0))
    plain: list[Normalise] = ["none", "sum", "sum+1e-20", "sum+1e-6"]
    if getattr(router, "norm_topk_prob", False):  # decides only where both give the same bits: K = N
        plain = [*plain[1:], "none"]
    for scale, score, normalise in itertools.product(scales, ("softmax", "sigmoid"), plain):
        yield Weighting(score, normalise, scale)
    for scale in scales:
        yield Weighting("softmax", "softmax", scale)


def find_selection(
    router: Any, bias: Tensor | None, logits: Tensor, chosen: Tensor, score: Score
) -> Selection | None:
    """Return the ranking whose first K are the model's own experts, for every token; None if none is.

    Args:
        router: The router's module; groups are looked up there.
        bias: From :func:`selection_bias`.
        logits: # [T, N]
        chosen: The model's own experts. # [T, K]
        score: The weighting's.
    """
    import torch

    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, chosen, True)
    for selection in _selections(router, bias is not None, score):
        ranked = selection.scores(logits, bias)
        least = ranked.masked_fill(~own, float("inf")).amin(-1)
        if bool((least >= ranked.masked_fill(own, float("-inf")).amax(-1)).all() & least.isfinite().all()):
            return selection
    return None


def _selections(router: Any, biased: bool, score: Score) -> Iterator[Selection]:
    """Yield rankings, what the router's module speaks for first: a bias and groups are there to be used."""
    count = int(getattr(router, "num_group", None) or 1)
    open_groups = int(getattr(router, "topk_group", None) or 1)
    ranked: list[Literal["logits", "softmax", "sigmoid"]] = [score] if biased else []
    ranked.append("sigmoid" if score == "sigmoid" else "logits")
    ways: tuple[Groups | None, ...] = ("best two", "best", None) if biased else ("best", "best two", None)
    for by, (with_bias, groups) in itertools.product(
        ranked, itertools.product((True, False) if biased else (False,), ways)
    ):
        if groups is None:
            yield Selection(by, with_bias)
        elif 1 <= open_groups < count:
            yield Selection(by, with_bias, groups, count, open_groups)
