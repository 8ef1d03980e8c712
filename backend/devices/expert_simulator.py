"""A whole mixture of experts on a device, simulated: shape and bit widths give a token's bytes.

The time is :func:`backend.devices.experts.expert_time`; here stand what stays in memory (attention, shared
experts, routers, dense MLPs, head, KV cache), what a routed expert takes, and how many fit. Bit widths of
experts are those of EdgeMoE (arXiv 2308.14352) as bytes only: quality is that of the weights that ran.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from backend.devices.experts import ExpertTime, expert_time
from backend.devices.flash import GB
from backend.devices.moe_shapes import MoEShape, find_moe_shape
from backend.devices.profiles import DEVICES, DeviceProfile
from backend.errors import UserError
from backend.residency import MissCurve
from backend.settings import Settings, setting

EXPERT_BITS: dict[str, float] = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}
"""Usual precisions of experts, by name; int8 and int4 take 8 and 4 bits a weight, scales left out."""


class ExpertSimulatorSettings(Settings):
    """What a simulation of a mixture of experts assumes."""

    expert_bits: float = setting(
        4,
        "Bits of one weight of a routed expert: 32, 16, 8 or 4, or the mean where experts differ (EdgeMoE, "
        "arXiv 2308.14352). Bytes only: the quality is that of the weights that really ran.",
        unit="bits",
        gt=0,
        le=64,
    )
    resident_bits: float = setting(
        4,
        "Bits of one weight of attention, shared experts, routers and dense MLPs.",
        unit="bits",
        gt=0,
        le=64,
    )
    embedding_bits: float = setting(8, "Bits of one value of embedding and head.", unit="bits", gt=0, le=64)
    kv_bits: float = setting(8, "Bits of one value of the KV cache.", unit="bits", gt=0, le=64)
    sequence_tokens: int = setting(
        2048,
        "Length of the sequence: the KV cache is reserved for it, and is half full on average.",
        unit="tokens",
        symbol="T",
        ge=1,
        le=1_048_576,
    )
    seeks: Literal["per miss", "per layer"] = setting(
        "per miss", "Each miss waits for its first byte, or the misses of a layer are asked for together."
    )
    flash_by_read_size: bool = setting(
        True, "Small reads from Flash are slower, as in the device's profile; off: all at its peak."
    )
    overlap: bool | None = setting(
        None, "Reads from Flash run beside reads from DRAM; not set: as the device's profile says."
    )
    dram_gb_per_s: float | None = setting(
        None, "DRAM bandwidth in place of the profile's.", unit="GB/s", gt=0, le=100_000
    )
    flash_gb_per_s: float | None = setting(
        None, "Peak Flash bandwidth in place of the profile's.", unit="GB/s", gt=0, le=100_000
    )
    flash_latency_us: float | None = setting(
        None, "Wait for a read's first byte in place of the profile's.", unit="µs", ge=0, le=1_000_000
    )


@dataclass(frozen=True)
class ExpertSimulation:
    """A mixture on a device with so many slots a layer. Every figure is simulated.

    Attributes:
        slots: C, experts of each layer that fit in memory.
        miss_rate: Share of the experts used that were missing: what was put in.
        misses_per_token: Experts loaded a token, all layers together.
        flash_bytes_per_token: Bytes of them.
        tokens_per_s: 1/t_token.
        all_resident_tokens_per_s: With every expert in memory.
        no_cache_tokens_per_s: With every expert loaded anew.
        memory_gb: Memory in use: what stays, and the slots, in GB.
        model_gb: The whole model with its KV cache, in GB.
        expert_mb: One routed expert, in MB.
        seconds_by_part: Seconds a token: ``dense`` and ``experts`` from DRAM, ``flash``, what misses add.
    """

    slots: int
    miss_rate: float
    misses_per_token: float
    flash_bytes_per_token: float
    tokens_per_s: float
    all_resident_tokens_per_s: float
    no_cache_tokens_per_s: float
    memory_gb: float
    model_gb: float
    expert_mb: float
    seconds_by_part: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return all figures with stable keys, units in their names."""
        return asdict(self)


class ExpertSimulator:
    """Simulates one mixture on one device, at any number of slots and any miss rate.

    Args:
        device: A profile or its name.
        shape: A shape, its name, or a folder with a config.json.
        settings: What is assumed.

    Raises:
        UserError: A name is unknown or a figure cannot be.
    """

    def __init__(
        self,
        device: str | DeviceProfile,
        shape: str | MoEShape,
        settings: ExpertSimulatorSettings | None = None,
    ) -> None:
        self.settings = settings or ExpertSimulatorSettings()
        profile = DEVICES[device] if isinstance(device, str) else device
        self.device = _assumed(profile, self.settings)
        self.shape = find_moe_shape(shape) if isinstance(shape, str) else shape

    @property
    def expert_bytes(self) -> float:
        """Bytes of one routed expert."""
        return self.shape.expert_weights * self.settings.expert_bits / 8

    @property
    def static_bytes(self) -> float:
        """Bytes that have to be in memory whatever is cached, the KV cache of a whole sequence included."""
        shape, settings = self.shape, self.settings
        tables = shape.embedding_weights * (1 if shape.tied else 2) * settings.embedding_bits / 8
        return self._resident_bytes + tables + settings.sequence_tokens * self._kv_bytes

    def slots_in(self, dram_gb: float) -> int:
        """Return the slots of each layer that fit into so much memory.

        Raises:
            UserError: Not even one token's experts fit.
        """
        shape = self.shape
        each = shape.moe_layers * self.expert_bytes
        slots = int((dram_gb * GB - self.static_bytes) / each * (1 + 1e-12))
        if slots < shape.experts_per_token:
            least = (self.static_bytes + shape.experts_per_token * each) / GB
            raise UserError(
                f"{dram_gb:g} GB do not hold what stays of {shape.name} and the {shape.experts_per_token} "
                f"experts that a token uses in each layer; give it {least:.2f} GB or fewer bits."
            )
        return min(slots, shape.experts)

    def at(self, slots: int, miss_rate: float) -> ExpertSimulation:
        """Simulate a token.

        Args:
            slots: C, slots of each layer; for the memory in use.
            miss_rate: Share of the experts used that are missing.

        Raises:
            UserError: Fewer slots than a token uses, more than there are, or no share.
        """
        shape = self.shape
        if not shape.experts_per_token <= slots <= shape.experts:
            raise UserError(
                f"{shape.name} takes {shape.experts_per_token} to {shape.experts} slots a layer, not {slots}."
            )
        if not 0 <= miss_rate <= 1:
            raise UserError(f"A miss rate is a share from 0 to 1, not {miss_rate:g}.")
        time = self._time(miss_rate)
        misses = miss_rate * self._accesses
        whole = shape.moe_layers * shape.experts * self.expert_bytes
        return ExpertSimulation(
            slots=slots,
            miss_rate=miss_rate,
            misses_per_token=misses,
            flash_bytes_per_token=misses * self.expert_bytes,
            tokens_per_s=time.tokens_per_s,
            all_resident_tokens_per_s=self._time(0.0).tokens_per_s,
            no_cache_tokens_per_s=self._time(1.0).tokens_per_s,
            memory_gb=(self.static_bytes + shape.moe_layers * slots * self.expert_bytes) / GB,
            model_gb=(self.static_bytes + whole) / GB,
            expert_mb=self.expert_bytes / 1e6,
            seconds_by_part={
                "dense": time.dense_s,
                "experts": time.experts_s,
                "flash": time.seconds - time.dense_s - time.experts_s,
            },
        )

    def along(self, curve: MissCurve, slots: int) -> ExpertSimulation:
        """Simulate with the miss rate that a recorded routing has at so many slots.

        Args:
            curve: Misses of per-layer caches by slots; it has to be of as many experts as the shape has.
            slots: C.

        Raises:
            UserError: The recording is of another number of experts, or uses more of them than there are
            slots.
        """
        if curve.size != self.shape.experts:
            raise UserError(
                f"The recording is of {curve.size} experts a layer, {self.shape.name} has "
                f"{self.shape.experts}."
            )
        if slots < curve.smallest:
            raise UserError(f"The recording uses {curve.smallest} experts a token; give it as many slots.")
        return self.at(slots, curve.miss_rate(slots))

    @property
    def _accesses(self) -> int:
        """Routed experts that a token uses, all layers together."""
        return self.shape.moe_layers * self.shape.experts_per_token

    @property
    def _resident_bytes(self) -> float:
        weights = self.shape.attention_weights + self.shape.other_mlp_weights
        return weights * self.settings.resident_bits / 8

    @property
    def _kv_bytes(self) -> float:
        return self.shape.kv_values * self.settings.kv_bits / 8

    def _time(self, miss_rate: float) -> ExpertTime:
        settings, shape = self.settings, self.shape
        head = (shape.embedding_weights + shape.hidden_size) * settings.embedding_bits / 8  # and one row
        misses = miss_rate * self._accesses
        # Less than one miss a layer means that some layers have none.
        together = min(misses, float(shape.moe_layers))
        return expert_time(
            self.device,
            dense_bytes=self._resident_bytes + head + settings.sequence_tokens / 2 * self._kv_bytes,
            used_bytes=self._accesses * self.expert_bytes,
            missed_bytes=misses * self.expert_bytes,
            misses=misses,
            overlap=self.device.io_overlap if settings.overlap is None else settings.overlap,
            seeks=together if settings.seeks == "per layer" else None,
        )


def _assumed(device: DeviceProfile, settings: ExpertSimulatorSettings) -> DeviceProfile:
    """Return the device as the settings change it."""
    device = device.with_bandwidths(settings.dram_gb_per_s, settings.flash_gb_per_s)
    flash = device.flash
    if not settings.flash_by_read_size:
        flash = replace(flash, points=flash.points[-1:])
    if settings.flash_latency_us is not None:
        flash = replace(flash, latency_us=settings.flash_latency_us)
    return replace(device, flash=flash)
