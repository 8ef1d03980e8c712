"""What a simulation assumes: stored precisions, what is read, how DRAM is split, how Flash is read."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from backend.devices.footprint import Precision
from backend.settings import Settings, setting


class SimulatorSettings(Settings):
    """The simulator's settings; the defaults are the more careful model, :meth:`paper` is the paper's."""

    sequence_tokens: int = setting(
        2048,
        "Length of the sequence: the KV cache is reserved for it, and is half full on average.",
        unit="tokens",
        symbol="T",
        ge=1,
        le=1_048_576,
    )
    mlp_bits: float = setting(4, "Bits of one weight of the MLPs.", unit="bits", gt=0, le=64)
    attention_bits: float = setting(4, "Bits of one weight of the attention.", unit="bits", gt=0, le=64)
    embedding_bits: float = setting(8, "Bits of one value of embedding and head.", unit="bits", gt=0, le=64)
    kv_bits: float = setting(8, "Bits of one value of the KV cache.", unit="bits", gt=0, le=64)
    predictor_bits: float = setting(16, "Bits of one weight of a mask predictor.", unit="bits", gt=0, le=64)
    embedding_read: Literal["row", "table"] = setting(
        "row", "What a token reads of the embedding: its row, or (as the paper counts) the whole table."
    )
    split: Literal["uniform", "optimised", "manual"] = setting(
        "uniform",
        "How caches share the DRAM that is left: the same for every linear (the paper), by where a byte "
        "saves most time, or by hand.",
    )
    input_share: float | None = setting(
        None,
        "Manual split: share of the caches' DRAM for columns of up and gate; the rest is for down.",
        unit="share of the caches' DRAM",
        ge=0,
        le=1,
    )
    flash_by_read_size: bool = setting(
        True, "Small reads from Flash are slower, as in the device's profile; off: all at its peak."
    )
    flash_latency: bool = setting(True, "Each linear's reads from Flash wait once for the first byte.")
    bundled: bool = setting(
        False, "The linears that one mask covers lie side by side on Flash: fewer and larger reads."
    )
    overlap: bool | None = setting(
        None, "Reads from Flash run beside reads from DRAM; not set: as the device's profile says."
    )
    start: Literal["cold", "warm"] = setting(
        "cold", "Caches are empty at the sequence's start (the paper), or filled by what came before it."
    )
    dram_gb_per_s: float | None = setting(
        None, "DRAM bandwidth in place of the profile's.", unit="GB/s", gt=0, le=100_000
    )
    flash_gb_per_s: float | None = setting(
        None, "Peak Flash bandwidth in place of the profile's.", unit="GB/s", gt=0, le=100_000
    )

    @model_validator(mode="after")
    def _manual_has_a_share(self) -> Self:
        if (self.split == "manual") != (self.input_share is not None):
            raise ValueError("input_share goes with split 'manual', and with no other")
        return self

    @classmethod
    def paper(cls, **changes: Any) -> Self:
        """Return the paper's mode: whole table read, uniform split, one Flash bandwidth, no overlap.

        Args:
            changes: Settings to change from that.

        Raises:
            UserError: A setting is unknown or out of range.
        """
        mode = {
            "embedding_read": "table",
            "flash_by_read_size": False,
            "flash_latency": False,
            "overlap": False,
        }
        return cls.parse(mode | changes, "simulator")

    @property
    def precision(self) -> Precision:
        """The bits of the model's own parts."""
        return Precision(self.mlp_bits, self.attention_bits, self.embedding_bits, self.kv_bits)
