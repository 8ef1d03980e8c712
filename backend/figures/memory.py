"""Figures of the memory simulator: speed against DRAM, hit rates against cache size, where the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backend.devices import DramCurve, HookSite, Simulation
from backend.experiments.recordings import Recording, Start
from backend.figures.curves import title_of
from backend.figures.memory_sources import CachePoint
from backend.figures.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, Style, style_of
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series
from backend.residency import Eviction

RULE_TITLES: dict[str, str] = {"lru": "LRU", "lfu": "LFU", "belady": "Belady (bound)"}
SITE_TITLES: dict[HookSite, str] = {"mlp_in": "inputs", "mlp_mid": "neurons"}
_RULE_COLOURS = {"lru": BLUE, "lfu": ORANGE, "belady": BLACK}
_SITE_DASHES: dict[HookSite, str] = {"mlp_in": "solid", "mlp_mid": "dash"}
_SITE_MARKERS: dict[HookSite, str] = {"mlp_in": "circle", "mlp_mid": "square"}
_SHARES = np.linspace(0, 1, 101)
_SAME_DENSITY = 0.005
"""Measured densities nearer than this are equal: whole columns only come near to a target."""
_STATIC = ("attention", "head", "embedding", "kv", "predictor", "mlp_unmasked")
_TIMES = (
    ("Attention, head, KV cache: DRAM", _STATIC, GREEN),
    ("What should be resident: Flash", ("static_flash",), PURPLE),
    ("MLP: DRAM", ("mlp_dram",), SKY),
    ("MLP: Flash", ("mlp_flash",), VERMILLION),
)


@dataclass(frozen=True, eq=False)
class SpeedLine:
    """Tokens a second of one policy over DRAM sizes.

    Attributes:
        policy: Its method's name, which gives the style.
        label: Its name in the legend.
        dram_gb: DRAM sizes. # [P]
        tokens_per_s: Tokens a second there. # [P]
        kind: "curve" where it was simulated at any size, "line" where only at the marked ones.
        mlp_density: Measured density; None says nothing of it.
    """

    policy: str
    label: str
    dram_gb: Sequence[float]
    tokens_per_s: Sequence[float]
    kind: Literal["curve", "line"] = "curve"
    mlp_density: float | None = None

    @classmethod
    def of(cls, policy: str, label: str, curve: DramCurve, mlp_density: float | None = None) -> SpeedLine:
        """Return the line of a simulated curve."""
        sizes, speeds = curve.dram_gb.tolist(), curve.tokens_per_s.tolist()
        return cls(policy, label, sizes, speeds, mlp_density=mlp_density)


def speed_figure(
    dense: DramCurve, lines: Sequence[SpeedLine], here: Simulation, policy: str, *, log: bool, device: str
) -> FigureSpec:
    """Return tokens a second against DRAM, with the chosen DRAM marked on the policy and on dense streaming.

    Args:
        dense: The dense model streamed from Flash.
        lines: The policies.
        here: The chosen policy at the chosen DRAM.
        policy: Its method's name.
        log: Logarithmic vertical axis.
        device: The device's title.
    """
    streamed = SpeedLine.of("dense", "Dense, streamed", dense)
    sizes, drawn = dense.dram_gb, [streamed, *lines]
    speeds = [here.tokens_per_s, *(speed for line in drawn for speed in line.tokens_per_s)]
    slowest, fastest = min(speeds), max(speeds)
    limits = (0.7 * slowest, 1.3 * fastest) if log else (0.0, 1.05 * fastest)
    marks = [
        _mark("dense", "Dense at this DRAM", here.dram_gb, here.dense_tokens_per_s, here),
        _mark(policy, f"{title_of(policy)} at this DRAM", here.dram_gb, here.tokens_per_s, here),
    ]
    return FigureSpec(
        title=f"Tokens per second against DRAM, {device}",
        x=Axis(
            label="DRAM for the model", unit="GB", better="lower", range=(float(sizes[0]), float(sizes[-1]))
        ),
        y=Axis(label="Tokens per second", unit="simulated", better="higher", log=log, range=limits),
        series=(*(_speed_series(line) for line in drawn), *marks),
        baselines=(Baseline(value=dense.static_gb, label="must be resident", axis="x"),),
        note="Simulated, memory-bound, batch one. Left of the dashed line even what every token reads "
        "streams from Flash." + _unequal({line.policy: line.mlp_density for line in lines}),
        provenance=Provenance(how=("simulated",)),
    )


def hit_figure(
    recording: Recording | None,
    start: Start,
    points: Sequence[CachePoint],
    here: Simulation,
    rule: str,
) -> FigureSpec:
    """Return hit rates against cache size: of a recording under every rule, and of DIP-CA's stored points.

    Args:
        recording: Plain DIP's; None draws no curves.
        start: Caches empty or filled at each sequence's start.
        points: DIP-CA's points along the cache size.
        here: The simulation, whose caches are marked.
        rule: The eviction rule asked for; where points are drawn, theirs is that of ``here``.
    """
    rule = points[0].eviction if points else rule
    densities = {"dip": recording.info.mlp_density} if recording is not None else {}
    densities |= {"dip_ca": points[0].mlp_density} if points else {}
    series = []
    for eviction in RULE_TITLES if recording is not None else ():
        for site in recording.sites if recording is not None else ():
            assert recording is not None
            series.append(_hit_curve(recording, site, eviction, start))  # type: ignore[arg-type]
    series += [_hit_points(points, site) for site in SITE_TITLES if points]
    series += [_hit_mark(here, site, rule) for site in SITE_TITLES if site in here.hit_rate_by_site]
    measured = "Recorded" if recording is not None else "Measured"
    return FigureSpec(
        title="Hit rate against cache size",
        x=Axis(label="Cache size", unit="% of the columns", better="lower", range=(0.0, 101.0)),
        y=Axis(label="Hit rate", unit="% of columns read", better="higher", range=(0.0, 101.0)),
        series=tuple(series),
        note=f"Solid: columns of up and gate (inputs); dashed: columns of down (neurons). {measured} over "
        "all layers, a cache each. Open: the simulated device's mean over layers. No device can run Belady's "
        "rule." + _unequal(densities),
        provenance=Provenance(how=("measured", "simulated"), methods=("dip",)),
    )


def time_figure(here: Simulation, policy: str) -> FigureSpec:
    """Return where a token's time goes: a stacked bar for the policy and one for dense streaming."""
    rows = (("Dense", here.dense_seconds_by_part), (title_of(policy), here.seconds_by_part))
    series = []
    for label, parts, colour in _TIMES:
        lengths = tuple(1e3 * sum(row.get(part, 0.0) for part in parts) for _, row in rows)
        if max(lengths) > 0:
            details = tuple(
                f"{name}: {label}: {ms:,.1f} ms" for (name, _), ms in zip(rows, lengths, strict=True)
            )
            style = Style(colour=colour, marker="square", dash="solid")
            series.append(
                Series(
                    name=label, label=label, style=style, kind="bar", x=lengths, y=(1.0, 0.0), details=details
                )
            )
    return FigureSpec(
        title=f"Where the time goes in {here.dram_gb:g} GB of DRAM",
        x=Axis(label="Time per token", unit="ms, simulated", better="lower"),
        y=Axis(label="", range=(-0.6, 1.6), ticks=((0.0, rows[1][0]), (1.0, rows[0][0]))),
        series=tuple(series),
        note="Simulated. Compute takes no time: at batch one the device waits for weights.",
        provenance=Provenance(how=("simulated",), methods=(policy,)),
    )


def _unequal(densities: Mapping[str, float | None]) -> str:
    """Return a sentence for a note if methods are drawn at unequal measured MLP densities, "" otherwise."""
    known = {policy: density for policy, density in densities.items() if density is not None}
    if not known or max(known.values()) - min(known.values()) < _SAME_DENSITY:
        return ""
    each = ", ".join(f"{title_of(policy)} {density:.3f}" for policy, density in known.items())
    return f" Not at equal MLP density; measured: {each}."


def _speed_series(line: SpeedLine) -> Series:
    details = tuple(
        f"{line.label}: {speed:.3g} tokens/s in {size:.3g} GB"
        for size, speed in zip(line.dram_gb, line.tokens_per_s, strict=True)
    )
    return Series(
        name=line.policy,
        label=line.label,
        style=style_of(line.policy),
        kind=line.kind,
        x=tuple(line.dram_gb),
        y=tuple(line.tokens_per_s),
        details=details,
    )


def _mark(policy: str, label: str, x: float, y: float, here: Simulation) -> Series:
    detail = f"{label}: {y:.3g} tokens/s in {here.dram_gb:.3g} GB"
    return Series(
        name=f"{policy} here",
        label=label,
        style=style_of(policy),
        kind="markers",
        x=(x,),
        y=(y,),
        details=(detail,),
    )


def _hit_curve(recording: Recording, site: HookSite, eviction: Eviction, start: Start) -> Series:
    curve = recording.curve(site, eviction, start)
    capacities = np.unique(np.round(_SHARES * curve.size).astype(int))
    shares = 100 * capacities / curve.size
    rates = 100 * curve.hits[capacities] / max(1, curve.accesses)
    name = f"{RULE_TITLES[eviction]}, {SITE_TITLES[site]}"
    return Series(
        name=f"{eviction} {site}",
        label=name,
        style=Style(colour=_RULE_COLOURS[eviction], marker=_SITE_MARKERS[site], dash=_SITE_DASHES[site]),
        kind="curve",
        x=tuple(shares.tolist()),
        y=tuple(rates.tolist()),
        details=tuple(f"{name}: {y:.1f} % at {x:.0f} %" for x, y in zip(shares, rates, strict=True)),
    )


def _hit_points(points: Sequence[CachePoint], site: HookSite) -> Series:
    share = "input_share" if site == "mlp_in" else "neuron_share"
    name = f"DIP-CA, {SITE_TITLES[site]}"
    x = tuple(100 * float(getattr(point, share)) for point in points)
    y = tuple(100 * point.hits[site] for point in points)
    return Series(
        name=f"dip_ca {site}",
        label=name,
        style=Style(colour=GREEN, marker=_SITE_MARKERS[site], dash=_SITE_DASHES[site]),
        x=x,
        y=y,
        ids=tuple(point.quality.cell_id for point in points),
        details=tuple(f"{name}: {b:.1f} % at {a:.0f} %, measured" for a, b in zip(x, y, strict=True)),
    )


def _hit_mark(here: Simulation, site: HookSite, rule: str) -> Series:
    x, y = 100 * here.cached_share_by_site[site], 100 * here.hit_rate_by_site[site]
    name = f"This DRAM, {SITE_TITLES[site]}"
    return Series(
        name=f"here {site}",
        label=name,
        style=Style(colour=_RULE_COLOURS.get(rule, BLACK), marker=_SITE_MARKERS[site], dash="solid"),
        kind="markers",
        x=(x,),
        y=(y,),
        details=(f"{name}: {y:.1f} % at {x:.1f} % of the columns",),
        hollow=(True,),
    )
