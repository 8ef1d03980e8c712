"""The device simulator: seconds a token at batch one, memory-bound, by bytes over bandwidth.

Source: Federici et al., arXiv 2412.01380 (its simulator; :meth:`SimulatorSettings.paper` is its mode).
Compute takes no time: at batch one a phone waits for weights. All figures are *simulated*, whatever the
densities and hit rates were measured on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from backend.devices.flash import GB
from backend.devices.footprint import Footprint, footprint
from backend.devices.hit_curves import Floats
from backend.devices.hooks import SITE_TITLES, Hook
from backend.devices.options import SimulatorSettings
from backend.devices.outcome import DramCurve, Replay
from backend.devices.profiles import DeviceProfile
from backend.devices.rates import Rates
from backend.devices.shapes import ModelShape
from backend.devices.split import HookArrays, OptimisedSplit, manual_split, uniform_split
from backend.errors import UserError


@dataclass(frozen=True, eq=False)
class Simulator:
    """One model with its hooks on one device; asked for as many DRAM sizes as one likes.

    Attributes:
        device: The device.
        shape: The model's sizes.
        hooks: Its hooks; none for the dense model streamed from Flash.
        settings: What is assumed.
        predictor_weights: Weights of mask predictors over all layers, resident in DRAM.
    """

    device: DeviceProfile
    shape: ModelShape
    hooks: Sequence[Hook]
    settings: SimulatorSettings
    predictor_weights: int = 0

    def __post_init__(self) -> None:
        if self.settings.split == "manual" and len({hook.site for hook in self.hooks}) == 1:
            only = SITE_TITLES[self.hooks[0].site]
            raise UserError(f"There is nothing to split by hand: this method has caches for the {only} only.")

    def curve(self, dram_gb: ArrayLike) -> DramCurve:
        """Simulate DRAM sizes.

        Args:
            dram_gb: DRAM that the model may use, in GB. # [P]

        Raises:
            UserError: A size is not above 0.
        """
        sizes = np.atleast_1d(np.asarray(dram_gb, dtype=np.float64))
        if not np.all((sizes > 0) & np.isfinite(sizes)):
            raise UserError("The DRAM for the model has to be above 0 GB.")
        dram = sizes * GB  # [P]
        dense_parts, dense_cached = self._dense(dram)
        if not self.hooks:
            ones, fraction = np.ones_like(dram), dense_cached / self._parts.mlp
            return self._outcome(sizes, dense_parts, dense_parts, dense_cached, fraction, ones, {}, {})
        hooks = self._arrays
        capacities = self._capacities(self._dynamic(dram, self._static_bytes))  # [P, H]
        hits = hooks.hits(capacities)  # [P, H]
        in_dram, waited = self._hook_seconds(hits)
        parts = self._static_parts(dram, self._static_bytes, self._unmasked, self._predictor)
        parts["mlp_dram"] = in_dram.sum(1)
        parts["mlp_flash"] = waited.sum(1)
        cached = capacities * hooks.entry_bytes
        read = (hooks.kept * hooks.entry_bytes).sum()
        return self._outcome(
            sizes,
            parts,
            dense_parts,
            cached.sum(1),
            (hits * hooks.entry_bytes).sum(1) / read,
            np.full_like(dram, (read + self._unmasked) / self._parts.mlp),
            self._by_site(hits * hooks.entry_bytes, hooks.kept * hooks.entry_bytes),
            self._by_site(cached, hooks.entries * hooks.entry_bytes),
        )

    def replay(self, hits: ArrayLike, dram_gb: float, kept: ArrayLike | None = None) -> Replay:
        """Simulate recorded tokens one by one, the KV cache growing with the position.

        Args:
            hits: Entries found in the cache by each token, at caches of the recording's size. # [T, H]
            dram_gb: DRAM that the model may use, in GB; decides only what of the static part overflows.
            kept: Entries each token reads; by default every hook's mean. # [T, H]

        Raises:
            UserError: The counts do not fit the hooks, or there are more hits than reads.
        """
        found = np.asarray(hits, dtype=np.float64)
        hooks = self._arrays
        if found.ndim != 2 or found.shape[1] != len(self.hooks) or not len(found):
            raise UserError(f"A replay needs the hits of {len(self.hooks)} hooks for every token.")
        read = np.broadcast_to(hooks.kept if kept is None else np.asarray(kept, np.float64), found.shape)
        if np.any(found < 0) or np.any(found > read + 1e-9):
            raise UserError("A token cannot hit more entries than it reads.")
        in_dram, waited = self._hook_seconds(found, read)
        kv_read = self._kv_token * np.arange(1, len(found) + 1, dtype=np.float64)
        dram = np.full(len(found), dram_gb * GB)
        static = self._static_parts(dram, self._static_bytes, self._unmasked, self._predictor, kv_read)
        return Replay(sum(static.values(), in_dram.sum(1) + waited.sum(1)))

    # Footprints. # bytes

    @cached_property
    def _parts(self) -> Footprint:
        settings = self.settings
        return footprint(self.shape, settings.precision, settings.sequence_tokens)

    @cached_property
    def _arrays(self) -> HookArrays:
        return HookArrays.of(self.hooks)

    @cached_property
    def _unmasked(self) -> float:
        """Bytes of the MLPs' linears that no mask covers: static like the rest."""
        if not self.hooks:
            return 0.0
        masked = float((self._arrays.entries * self._arrays.entry_bytes).sum())
        return max(0.0, self._parts.mlp - masked)

    @property
    def _predictor(self) -> float:
        """Bytes of the mask predictors, which the dense model does without."""
        return self.predictor_weights * self.settings.predictor_bits / 8 if self.hooks else 0.0

    @cached_property
    def _static_bytes(self) -> float:
        return self._parts.static + self._predictor + self._unmasked

    @cached_property
    def _kv_token(self) -> float:
        return self._parts.kv / self.settings.sequence_tokens

    @cached_property
    def _rates(self) -> Rates:
        return Rates.of(self.device, self.settings, self._arrays)

    # Times. # seconds a token

    def _hook_seconds(self, hits: Floats, kept: Floats | None = None) -> tuple[Floats, Floats]:
        """Return each hook's (time of hits, time that misses add). # [P, H] → 2 × [P, H]"""
        hooks = self._arrays
        misses = np.maximum((hooks.kept if kept is None else kept) - hits, 0.0)
        flash = misses * (hooks.entry_bytes / self._rates.hooks)
        # Reads of one hook wait together; less than one miss a token means that some tokens have none.
        flash = flash + np.minimum(misses, 1.0) * self._rates.latency_s
        return self._rates.time(hits * (hooks.entry_bytes / self._rates.dram), flash)

    def _static_parts(
        self,
        dram: Floats,
        stored: float,
        unmasked: float = 0.0,
        predictor: float = 0.0,
        kv_read: Floats | None = None,
    ) -> dict[str, Floats]:
        """Return the seconds of what every token reads whole; what overflows DRAM streams from Flash.

        Args:
            dram: DRAM in bytes. # [P]
            stored: Bytes that should be resident.
            unmasked: Of these, bytes of MLP linears without a mask.
            predictor: Of these, bytes of mask predictors.
            kv_read: Bytes read of the KV cache; by default half of it, the mean over the sequence. # [P]
        """
        size = self._parts
        table = size.embedding if self.settings.embedding_read == "table" else size.embedding_row
        read = {
            "attention": np.full_like(dram, size.attention),
            "head": np.full_like(dram, size.head_read),
            "embedding": np.full_like(dram, table),
            "kv": np.full_like(dram, size.kv / 2) if kv_read is None else kv_read,
            "predictor": np.full_like(dram, predictor),
            "mlp_unmasked": np.full_like(dram, unmasked),
        }
        total = sum(read.values(), np.zeros_like(dram))
        streamed = np.minimum(np.maximum(stored - dram, 0.0), total)
        _, waited = self._rates.time((total - streamed) / self._rates.dram, streamed / self._rates.flash)
        resident = 1 - streamed / total
        seconds = {part: bytes_ * resident / self._rates.dram for part, bytes_ in read.items()}
        return seconds | {"static_flash": waited}

    def _dense(self, dram: Floats) -> tuple[dict[str, Floats], Floats]:
        """Return the dense model's seconds by part, and the bytes of its MLPs that stay in DRAM. # [P]"""
        size = self._parts
        cached = np.minimum(self._dynamic(dram, size.static), size.mlp)
        parts = self._static_parts(dram, size.static)
        parts["mlp_dram"], parts["mlp_flash"] = self._rates.time(
            cached / self._rates.dram, (size.mlp - cached) / self._rates.flash
        )
        return parts, cached

    # Splitting DRAM.

    @staticmethod
    def _dynamic(dram: Floats, static: float) -> Floats:
        return np.maximum(dram - static, 0.0)

    def _capacities(self, dynamic: Floats) -> Floats:
        """Return the caches' capacities in entries. # [P] → [P, H]"""
        hooks = self._arrays
        if self.settings.input_share is not None:
            return manual_split(hooks, dynamic, self.settings.input_share)
        uniform = uniform_split(hooks, dynamic)
        if self.settings.split == "uniform":
            return uniform
        better = self._optimised.capacities(dynamic)
        # Where curves are not concave, or Flash hides behind DRAM, greed may lose: then keep the uniform one.
        is_better = self._total(better) < self._total(uniform)
        return np.where(is_better[:, None], better, uniform)

    @cached_property
    def _optimised(self) -> OptimisedSplit:
        per_hit = self._arrays.entry_bytes * (1 / self._rates.hooks - 1 / self._rates.dram)
        return OptimisedSplit.of(self._arrays, per_hit)

    def _total(self, capacities: Floats) -> Floats:
        in_dram, waited = self._hook_seconds(self._arrays.hits(capacities))
        seconds: Floats = (in_dram + waited).sum(1)
        return seconds

    # Results.

    def _by_site(self, amounts: Floats, wholes: Floats) -> dict[str, Floats]:
        """Return each site's share: amounts [P, H] over wholes [H], by site. # [P] each"""
        shares: dict[str, Floats] = {}
        for site in dict.fromkeys(hook.site for hook in self.hooks):
            mine = self._arrays.is_input == (site == "mlp_in")
            shares[site] = amounts[:, mine].sum(1) / wholes[mine].sum()
        return shares

    def _outcome(
        self,
        sizes: Floats,
        parts: dict[str, Floats],
        dense_parts: dict[str, Floats],
        cached: Floats,
        hit_rate: Floats,
        mlp_density: Floats,
        hit_rate_by_site: dict[str, Floats],
        cached_share_by_site: dict[str, Floats],
    ) -> DramCurve:
        dram = sizes * GB
        seconds = sum(parts.values(), np.zeros_like(dram))
        static = self._static_bytes
        return DramCurve(
            dram_gb=sizes,
            tokens_per_s=1 / seconds,
            mean_of_rates_tokens_per_s=self._mean_of_rates(dram, seconds, parts),
            dense_tokens_per_s=1 / sum(dense_parts.values(), np.zeros_like(dram)),
            hit_rate=hit_rate,
            mlp_density=mlp_density,
            memory_gb=(np.minimum(static, dram) + cached) / GB,
            cache_gb=cached / GB,
            overflow_gb=np.maximum(static - dram, 0.0) / GB,
            seconds_by_part=parts,
            dense_seconds_by_part=dense_parts,
            hit_rate_by_site=hit_rate_by_site,
            cached_share_by_site=cached_share_by_site,
            model_gb=(self._parts.total + self._predictor) / GB,
            static_gb=static / GB,
        )

    def _mean_of_rates(self, dram: Floats, seconds: Floats, parts: dict[str, Floats]) -> Floats:
        """Return the mean over positions of 1/t_token, the KV cache growing. # [P]

        What the KV cache adds is a straight line in the position (mean: its middle), so that the mean of
        1/t has a closed form: ln(t_last/t_first)/(t_last − t_first).
        """
        half = parts["kv"]
        # log1p keeps its digits where the cache hardly matters.
        growth = 2 * half / (seconds - half)
        small = growth < 1e-6
        safe = np.where(small, 1.0, growth)
        mean = np.where(small, 1 - growth / 2, np.log1p(safe) / safe)
        rates: Floats = mean / (seconds - half)
        return rates
