"""Hooks: one mask, the linears it covers in one layer, and how often what it keeps is in DRAM.

A hook is what has a cache: DIP has two in every layer, the MLP's input (columns of gate and up) and its
neurons (columns of down). Hooks come from a recording (:func:`recorded_hooks`), also one made on a model
of another shape, or from densities and assumed hit rates (:func:`assumed_hooks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backend.devices.hit_curves import HitCurve, HitLaw
from backend.devices.options import SimulatorSettings
from backend.devices.shapes import ModelShape
from backend.errors import UserError
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from backend.residency.miss_curve import MissCurve

HookSite = Literal["mlp_in", "mlp_mid"]
HOOK_SITES: tuple[HookSite, ...] = ("mlp_in", "mlp_mid")
SITE_TITLES: dict[HookSite, str] = {"mlp_in": "MLP input", "mlp_mid": "neurons"}
Keeps = Mapping[HookSite, float | Sequence[float]]
"""Share of the entries kept at each site: one for all layers, or one a layer."""


@dataclass(frozen=True)
class Hook:
    """One hook of the simulated model.

    Attributes:
        site: Where its mask is made.
        layer: Its layer.
        entries: N, the entries its mask chooses from (d inputs or n neurons).
        entry_bytes: Bytes of one entry in one of its linears (a column of W_g: n values).
        linears: How many linears of the layer its mask covers.
        kept: Entries kept a token, on average.
        curve: Its cache's hit rate by size.
    """

    site: HookSite
    layer: int
    entries: int
    entry_bytes: float
    linears: int
    kept: float
    curve: HitCurve

    def __post_init__(self) -> None:
        if not 0 < self.kept <= self.entries:
            raise UserError(
                f"Layer {self.layer}, {SITE_TITLES[self.site]}: {self.kept:g} of {self.entries} kept; "
                "expected more than 0 and at most all."
            )


@dataclass(frozen=True)
class RecordedHook:
    """What was recorded of one hook on a model that ran: reduced from its trace.

    Attributes:
        site: Where its mask is made.
        layer: Its layer.
        entries: N of the model that ran.
        kept: Entries kept a token, on average.
        cold: Hit rate by cache size, caches empty at each sequence's start.
        warm: The same with caches filled beforehand; None if it was not recorded.
    """

    site: HookSite
    layer: int
    entries: int
    kept: float
    cold: HitCurve
    warm: HitCurve | None = None

    @classmethod
    def from_miss_curves(
        cls, site: HookSite, layer: int, cold: MissCurve, warm: MissCurve | None = None
    ) -> RecordedHook:
        """Return the recording that :mod:`backend.residency` made of one hook.

        Args:
            site: Where its mask is made.
            layer: Its layer.
            cold: Misses by cache size with all tokens counted.
            warm: The same with a sequence's first tokens not counted.

        Raises:
            UserError: Nothing was recorded.
        """
        if not (cold.tokens and cold.accesses and (warm is None or warm.accesses)):
            raise UserError(f"Nothing was recorded of layer {layer}, {SITE_TITLES[site]}.")
        warmed = None
        if warm is not None:
            rates = warm.hits / warm.accesses
            rates[-1] = 1.0  # a warm cache for all entries has them all, used before or not
            warmed = HitCurve.by_capacity(rates)
        kept = cold.accesses / cold.tokens
        return cls(site, layer, cold.size, kept, HitCurve.by_capacity(cold.hits / cold.accesses), warmed)


def masked_linears(policy: Policy) -> dict[HookSite, int]:
    """Return how many linears of an MLP each of a policy's masks covers.

    DIP: 2 at the input (gate and up), 1 at the neurons. GLU pruning: 1; gate pruning: 2; the oracle: 3.

    Raises:
        UserError: The policy masks attention too, which the simulator does not cover.
    """
    sites = policy.used_sites()
    if "attn_in" in sites or "attn_out" in sites:
        raise UserError(f"{policy.title} also skips attention weights; the simulator covers MLPs only.")
    found: dict[HookSite, int] = {}
    if "mlp_in" in sites:
        found["mlp_in"] = 2
    if "mlp_mid" in sites:
        # What the score needs is read whole, or already by the input's columns.
        free = {"gate", "up"} - (policy.needs - policy.uncharged)
        found["mlp_mid"] = 1 + (0 if "mlp_in" in sites else len(free))
    return found


def policy_keeps(policy: Policy, layers: int) -> dict[HookSite, list[float]]:
    """Return the share of entries that a policy's settings keep at each site, one a layer.

    Raises:
        UserError: The settings do not fix the shares (thresholds); only a recording tells.
    """
    sites = list(masked_linears(policy))
    keeps = getattr(policy, "keeps", None)
    if callable(keeps):
        of_layers = [keeps(layer, layers) for layer in range(layers)]
        shares = {"mlp_in": [each[0] for each in of_layers], "mlp_mid": [each[1] for each in of_layers]}
        return {site: shares[site] for site in sites}
    keep = getattr(policy, "keep", None)
    if sites == ["mlp_mid"] and isinstance(keep, int | float) and not policy.threshold_kept:
        return {"mlp_mid": [float(keep)] * layers}
    if not sites:
        return {}
    raise UserError(f"The settings of {policy.title} do not fix what it keeps; simulate it from a recording.")


def recorded_hooks(
    shape: ModelShape,
    linears: Mapping[HookSite, int],
    recorded: Sequence[RecordedHook],
    settings: SimulatorSettings,
) -> list[Hook]:
    """Return the hooks of ``shape`` with densities and hit rates recorded on a model that ran.

    On another shape, a layer takes the recording of the layer at the same relative depth, and a cache that
    holds some share of the entries has the hit rate recorded at that share. That is an assumption, to be
    named beside the result.

    Args:
        shape: The simulated model.
        linears: How many linears each mask covers (:func:`masked_linears`).
        recorded: One a layer and site of the model that ran.
        settings: Bits of a weight; cold or warm start.

    Raises:
        UserError: A site or layer was not recorded, or no warm curve was.
    """
    if not recorded:
        raise UserError("The recording is empty: no hook of any layer was recorded.")
    by_place = {(each.site, each.layer): each for each in recorded}
    source_layers = 1 + max(each.layer for each in recorded)
    hooks = []
    for layer in range(shape.layers):
        source = layer_at_same_depth(layer, shape.layers, source_layers)
        for site in linears:
            found = by_place.get((site, source))
            if found is None:
                raise UserError(
                    f"The recording has nothing for layer {source}, {SITE_TITLES[site]}; record it again."
                )
            curve = found.cold if settings.start == "cold" else found.warm
            if curve is None:
                raise UserError("The recording has no hit rates for a warm start; choose a cold one.")
            hooks.append(
                _hook(shape, settings, site, layer, linears[site], found.kept / found.entries, curve)
            )
    return hooks


def assumed_hooks(
    shape: ModelShape,
    linears: Mapping[HookSite, int],
    keeps: Keeps,
    hits: HitLaw | Mapping[HookSite, float],
    settings: SimulatorSettings,
) -> list[Hook]:
    """Return the hooks of ``shape`` from shares kept and a law of hits, or hit rates measured elsewhere.

    Args:
        shape: The simulated model.
        linears: How many linears each mask covers (:func:`masked_linears`).
        keeps: Share of the entries kept, by site.
        hits: A law (see :meth:`HitCurve.assumed`), or each site's hit rate.
        settings: Bits of a weight; cold or warm start.

    Raises:
        UserError: A share or hit rate is missing or out of range.
    """
    tokens = settings.sequence_tokens if settings.start == "cold" else None
    shares = {site: _per_layer(keeps, site, shape.layers) for site in linears}
    curves: dict[tuple[HookSite, float], HitCurve] = {}  # few are different: their hulls are made once
    hooks = []
    for layer in range(shape.layers):
        for site, covered in linears.items():
            share = shares[site][layer]
            if (site, share) not in curves:
                if isinstance(hits, str):
                    curves[site, share] = HitCurve.assumed(hits, share, tokens)
                elif site in hits:
                    curves[site, share] = HitCurve.fixed(hits[site], share)
                else:
                    raise UserError(f"A hit rate is missing for the {SITE_TITLES[site]}.")
            hooks.append(_hook(shape, settings, site, layer, covered, share, curves[site, share]))
    return hooks


def layer_at_same_depth(layer: int, layers: int, source_layers: int) -> int:
    """Return the layer of a model of ``source_layers`` at the relative depth of ``layer``."""
    if layers == 1:
        return 0
    return round(layer * (source_layers - 1) / (layers - 1))


def _hook(
    shape: ModelShape,
    settings: SimulatorSettings,
    site: HookSite,
    layer: int,
    linears: int,
    kept_share: float,
    curve: HitCurve,
) -> Hook:
    entries, values = (
        (shape.hidden_size, shape.neurons) if site == "mlp_in" else (shape.neurons, shape.hidden_size)
    )
    entry_bytes = values * settings.mlp_bits / 8
    return Hook(site, layer, entries, entry_bytes, linears, kept_share * entries, curve)


def _per_layer(keeps: Keeps, site: HookSite, layers: int) -> list[float]:
    given = keeps.get(site)
    if given is None:
        raise UserError(f"The share kept is missing for the {SITE_TITLES[site]}.")
    shares = [float(given)] * layers if isinstance(given, int | float) else [float(each) for each in given]
    if len(shares) != layers:
        raise UserError(f"{len(shares)} shares were given for a model of {layers} layers.")
    wrong = next((share for share in shares if not 0 < share <= 1), None)
    if wrong is not None:
        raise UserError(f"The share of entries kept has to lie in (0, 1] (given: {wrong:g}).")
    return shares
