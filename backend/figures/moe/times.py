"""Time of a token, simulated from what caches miss on a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backend.devices import DeviceProfile, ExpertTime, expert_time
from backend.figures.moe.grid import GridPoint
from backend.figures.moe.origin import MEASURED
from backend.figures.palette import GREEN, SKY, VERMILLION, Style
from backend.figures.spec import Axis, FigureSpec, How, Provenance, Series
from backend.residency import Eviction, RoutingRecord
from backend.residency.routing_record import Start

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
        oracle: Its caches know the future.
    """

    label: str
    time: ExpertTime
    oracle: bool = False


def time_of(
    record: RoutingRecord,
    device: DeviceProfile,
    slots: int,
    rule: Eviction,
    start: Start,
    *,
    overlap: bool = False,
) -> ExpertTime:
    """Return the simulated time of a token with a cache of ``slots`` experts a layer.

    Args:
        record: The routing; its experts' bytes have to be known.
        device: The device.
        slots: C, in experts of one layer.
        rule: The caches' rule.
        start: Whether caches begin empty.
        overlap: Flash is read beside DRAM.
    """
    return expert_time(
        device,
        dense_bytes=record.dense_bytes,
        used_bytes=record.used_bytes_per_token,
        missed_bytes=record.miss_bytes_per_token(slots, rule, start) or 0.0,
        misses=record.misses_per_token(slots, rule, start),
        overlap=overlap,
    )


def stored_time(
    record: RoutingRecord, device: DeviceProfile, point: GridPoint, *, overlap: bool = False
) -> ExpertTime:
    """Return the simulated time of a token of a measured routing, with the cache that it ran with.

    Args:
        record: The original routing, for what a token reads beside experts and how large they are.
        device: The device.
        point: What was measured: misses, their bytes, and experts used of each layer.
        overlap: Flash is read beside DRAM.
    """
    values = point.values
    used = values.get("experts_per_token", float(record.experts_per_token)) * sum(record.bytes_by_layer)
    misses = values.get("misses_per_token", 0.0)
    return expert_time(
        device,
        dense_bytes=record.dense_bytes,
        used_bytes=used,
        missed_bytes=values.get("miss_bytes_per_token", misses * record.expert_bytes),
        misses=misses,
        overlap=overlap,
    )


def time_figure(
    rows: Sequence[TimeRow],
    label: str,
    device: DeviceProfile,
    slots: int,
    *,
    longest: float = 0.0,
    where: Provenance = MEASURED,
) -> FigureSpec:
    """Return stacked bars of a token's time.

    Args:
        rows: The bars, from the top.
        label: Whose routing it is.
        device: The device.
        slots: C, in experts of one layer.
        longest: The longest bar at any cache size, in seconds, so that the axis holds still.
        where: Where the misses came from.
    """
    heights = tuple(float(len(rows) - 1 - i) for i in range(len(rows)))
    series = []
    for name, part, colour in _PARTS:
        lengths = tuple(1e3 * float(getattr(row.time, part)) for row in rows)
        if max(lengths) > 0:
            hovers = (f"{row.label}: {name}: {ms:,.2f} ms" for row, ms in zip(rows, lengths, strict=True))
            style = Style(colour=colour, marker="square", dash="solid")
            series.append(
                Series(
                    name=part,
                    label=name,
                    style=style,
                    kind="bar",
                    x=lengths,
                    y=heights,
                    details=tuple(hovers),
                )
            )
    ticks = tuple(
        (height, f"{row.label}, {_short(row.time.tokens_per_s)} tokens/s")
        for height, row in zip(heights, rows, strict=True)
    )
    in_all = [row.time.dense_s + row.time.experts_s + row.time.misses_s for row in rows]
    how = "reads are in turn, so times add up"
    if any(row.time.overlap for row in rows):
        how = "Flash is read beside DRAM, so the longer of the two counts (a bound: bars show both)"
    oracle = any(row.oracle for row in rows)
    got: tuple[How, ...] = ("measured", "simulated", *(("oracle",) if oracle else ()))
    return FigureSpec(
        title=f"Time of a token with caches of {slots} experts a layer, {label}",
        x=Axis(
            label="Time per token", unit="ms, simulated", better="lower",
            range=(0.0, 1.03e3 * max(longest, *in_all)),
        ),
        y=Axis(label="", range=(-0.6, len(rows) - 0.4), ticks=ticks),
        series=tuple(series),
        note=f"Simulated on {device.title}, memory-bound, batch one, from misses walked exactly over the "
        f"recorded routing, or measured where it looks at the cache; {how}. Computing takes no time."
        + (" Belady is an oracle: no rule that runs knows the future." if oracle else ""),
        provenance=where.model_copy(update={"how": got}),
    )  # fmt: skip


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
