"""Time of a token, simulated from what caches miss on a device."""

from __future__ import annotations

from dataclasses import dataclass

from backend.devices import DeviceProfile, ExpertTime, expert_time
from backend.figures.moe.origin import MEASURED
from backend.figures.palette import GREEN, SKY, VERMILLION, Style
from backend.figures.spec import Axis, FigureSpec, Provenance, Series
from backend.residency import RoutingRecord

_PARTS = (
    ("Read by every token: DRAM", "dense_s", GREEN),
    ("Experts used: DRAM", "experts_s", SKY),
    ("Misses: Flash", "misses_s", VERMILLION),
)


@dataclass(frozen=True)
class TimeRow:
    """One bar.

    Attributes:
        label: What runs.
        time: Its time of a token.
    """

    label: str
    time: ExpertTime


def time_of(
    record: RoutingRecord,
    device: DeviceProfile,
    *,
    misses: float,
    missed_bytes: float,
    used_bytes: float | None = None,
    overlap: bool = False,
) -> ExpertTime:
    """Return the simulated time of a token.

    Args:
        record: The routing, for what a token reads; its experts' bytes have to be known.
        device: The device.
        misses: Experts that a token loads, over all layers.
        missed_bytes: Their bytes.
        used_bytes: Bytes of the experts that a token uses; None for the record's own.
        overlap: Flash is read beside DRAM.
    """
    used = record.used_bytes_per_token if used_bytes is None else used_bytes
    return expert_time(
        device,
        dense_bytes=record.dense_bytes,
        used_bytes=used,
        missed_bytes=missed_bytes,
        misses=misses,
        overlap=overlap,
    )


def time_figure(
    rows: list[TimeRow], label: str, device: DeviceProfile, slots: int, *, longest: float = 0.0,
    where: Provenance = MEASURED,
) -> FigureSpec:  # fmt: skip
    """Return stacked bars of a token's time.

    Args:
        rows: The bars, from the top.
        label: Whose routing it is.
        device: The device.
        slots: C, in experts of one layer.
        longest: The longest bar at any cache size, in seconds, so that the axis holds still.
        where: Where the hit rates came from.
    """
    heights = tuple(float(len(rows) - 1 - i) for i in range(len(rows)))
    series = []
    for name, part, colour in _PARTS:
        lengths = tuple(1e3 * float(getattr(row.time, part)) for row in rows)
        if max(lengths) > 0:
            series.append(
                Series(
                    name=part,
                    label=name,
                    style=Style(colour=colour, marker="square", dash="solid"),
                    kind="bar",
                    x=lengths,
                    y=heights,
                    details=tuple(
                        f"{row.label}: {name}: {ms:,.2f} ms" for row, ms in zip(rows, lengths, strict=True)
                    ),
                )
            )
    sums = [row.time.dense_s + row.time.experts_s + row.time.misses_s for row in rows]
    together = any(row.time.overlap for row in rows)
    how = (
        "With Flash read beside DRAM the longer of the two counts, a bound"
        if together
        else "Reads are in turn: times add up"
    )
    ticks = tuple(
        (height, f"{row.label}, {row.time.tokens_per_s:.3g} tokens/s")
        for height, row in zip(heights, rows, strict=True)
    )
    end = 1.03e3 * max(longest, *sums)
    return FigureSpec(
        title=f"Time of a token with caches of {slots} experts a layer, {label}",
        x=Axis(label="Time per token", unit="ms, simulated", better="lower", range=(0.0, end)),
        y=Axis(label="", range=(-0.6, len(rows) - 0.4), ticks=ticks),
        series=tuple(series),
        note=f"Simulated on {device.title}, memory-bound, batch one; misses are measured. {how}. Computing "
        "takes no time.",
        provenance=where.model_copy(update={"how": ("measured", "simulated")}),
    )
