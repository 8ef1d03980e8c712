"""DIP-CA: Dynamic Input Pruning that prefers the columns which are in fast memory already.

Source: Federici et al., arXiv 2412.01380, section 5. The caches are sequential only inside a layer: all
inputs of a layer exist once the layer below is done, so a whole sequence takes ONE forward pass and equals
decoding it token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

from pydantic import model_validator

from backend.residency.cache_aware import HookCaches, column_capacity, gamma_schedule
from backend.seeds import mixed_seed
from backend.settings import setting
from backend.sparsity.dip import DIP
from backend.sparsity.policy import Activations, Context, Site, Tally, method
from backend.sparsity.selection import kept_count

if TYPE_CHECKING:
    from torch import Tensor

HOOKS: tuple[Site, ...] = ("mlp_in", "mlp_mid")


@dataclass
class LayerCaches:
    """The caches of one layer: made when its hooks are first asked, one a sequence.

    Attributes:
        sequences: Running numbers of the batch rows.
        hooks: The caches by hook.
    """

    sequences: tuple[int, ...]
    hooks: dict[Site, HookCaches] = field(default_factory=dict)


@method
class DIPCA(DIP):
    """DIP whose scores are weighed by γ for columns outside the cache, per hook and per sequence."""

    name = "dip_ca"
    title = "DIP-CA"
    version = 1
    summary = "DIP that prefers columns already in fast memory, so that fewer are loaded from Flash."
    looks_at_cache = True
    equation = (
        r"s'_i = s_i\,(c_i + \gamma(1 - c_i)),\quad m = T_k(s'),\quad "
        r"s = |x| \text{ for } m_{in},\ |\hat a| \text{ for } m_{glu}"
    )
    limits = (
        "Its masks depend on the cache: a result holds for its cache share, γ and eviction rule alone. "
        "Caches are empty at each sequence's start. γ = 1 is plain DIP."
    )

    gamma: float = setting(
        0.2,
        "What the score of a column outside the cache is multiplied by; 1 is DIP.",
        symbol="γ",
        ge=0,
        le=1,
    )
    cache_share: float = setting(
        0.5,
        "Share of each hook's columns that fit in fast memory.",
        unit="share of columns",
        symbol="C/N",
        ge=0,
        le=1,
    )
    input_cache: float | None = setting(
        None,
        "Share of the input columns (gate and up) that fit, in place of cache_share.",
        unit="share of columns",
        ge=0,
        le=1,
    )
    neuron_cache: float | None = setting(
        None,
        "Share of the neurons' columns (down) that fit, in place of cache_share.",
        unit="share of columns",
        ge=0,
        le=1,
    )
    eviction: Literal["lru", "lfu", "random"] = setting("lru", "Which idle columns leave a full cache.")
    fixed_top_n: int = setting(0, "How many of the largest scores are never weighed down.", ge=0)
    warm_up: bool = setting(False, "Begin each sequence with γ = 1 and let it fall to γ.")
    seed: int = setting(0, "Seed of the random eviction.", ge=0)

    @model_validator(mode="after")
    def _cache_can_change(self) -> Self:
        if self.gamma == 0 and self.fixed_top_n == 0:
            raise ValueError(
                "gamma 0 would freeze the cache, since nothing outside it is ever chosen; give a gamma above "
                "0 or a fixed_top_n above 0"
            )
        return self

    def start(self, layer: int, sequences: Sequence[int]) -> LayerCaches:
        """Return empty caches for new sequences."""
        return LayerCaches(tuple(sequences))

    def mlp_in(self, x: Tensor, context: Context) -> Tensor:
        """Keep the largest weighed ``|x|``; one mask serves W_g and W_u. # [B, T, d]"""
        keep, _ = self.keeps(context.layer, context.layers)
        return self._choose("mlp_in", x, keep, context)

    def mlp_mid(self, activations: Activations, context: Context) -> Tensor:
        """Keep the largest weighed ``|â|`` of the input-pruned activations. # [B, T, n]"""
        assert activations.neurons is not None
        _, keep = self.keeps(context.layer, context.layers)
        return self._choose("mlp_mid", activations.neurons, keep, context)

    def as_ranking(self, site: Site, context: Context) -> None:
        """Return None: what is chosen depends on the cache, not on the magnitudes alone."""
        return

    def tallies(self, context: Context) -> list[Tally]:
        """Return hit rates, by hook and of all weights read, and what was loaded."""
        assert context.mlp is not None
        d, n = context.mlp.hidden_size, context.mlp.neurons
        column_weights: dict[Site, int] = {"mlp_in": 2 * n, "mlp_mid": d}
        found = []
        for hook, caches in context.state.hooks.items():
            hits, accesses = int(caches.hits.sum()), int(caches.accesses.sum())
            weights = column_weights[hook]
            found += [
                Tally(f"hit_rate_{hook}", hits, accesses, "share of columns chosen"),
                Tally("hit_rate", hits * weights, accesses * weights, "share of weights chosen"),
                Tally("miss_bytes_per_token", (accesses - hits) * weights, None, "B/token", in_weights=True),
            ]
        return found

    def _choose(self, hook: Site, values: Tensor, keep: float, context: Context) -> Tensor:
        import torch

        size = values.shape[-1]
        caches = self._caches(hook, size, context)
        gammas = gamma_schedule(self.gamma, caches.tokens, values.shape[1], warm_up=self.warm_up)
        scores = values.detach().abs().float().cpu().numpy()
        masks = caches.choose(scores, kept_count(keep, size), gammas, self.fixed_top_n)
        return torch.from_numpy(masks).view(torch.bool).to(values.device)

    def _caches(self, hook: Site, size: int, context: Context) -> HookCaches:
        state: LayerCaches = context.state
        if hook not in state.hooks:
            own = self.input_cache if hook == "mlp_in" else self.neuron_cache
            capacity = column_capacity(self.cache_share if own is None else own, size)
            seeds = [mixed_seed(self.seed, context.layer, HOOKS.index(hook), row) for row in state.sequences]
            state.hooks[hook] = HookCaches(size, capacity, self.eviction, seeds)
        return state.hooks[hook]
