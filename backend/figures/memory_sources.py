"""What the memory simulator is fed with: densities, hit rates and losses that were measured on one text.

Plain DIP's hits come from recordings, which hold every cache size. DIP-CA's masks depend on the cache, so its
hits come from stored points, each for its own γ, density and cache.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from backend.devices import HookSite
from backend.evaluation.statistics import Estimate
from backend.experiments.recordings import RecordingInfo
from backend.results import Store, queries
from backend.sparsity import Policy, make_policy

PLAIN, CACHE_AWARE = "dip", "dip_ca"
_HITS = ("hit_rate", "hit_rate_mlp_in", "hit_rate_mlp_mid", "miss_bytes_per_token")
_OTHER_RULE = 10.0
"""Distance of a point with another eviction rule: taken only where there is no other."""


@dataclass(frozen=True)
class Quality:
    """What a stored point lost against the dense model of its own run.

    Attributes:
        cell_id: The point.
        run_id: The run that measured it.
        perplexity: Its perplexity.
        delta_nll: ΔNLL to dense, paired by window.
        tokens: Tokens fed.
    """

    cell_id: str
    run_id: str
    perplexity: float
    delta_nll: Estimate
    tokens: int

    @property
    def dense_perplexity(self) -> float:
        """The dense model's perplexity on the same windows."""
        return self.perplexity * math.exp(-self.delta_nll.value)

    @property
    def rise(self) -> float:
        """Perplexity lost."""
        return self.perplexity - self.dense_perplexity


@dataclass(frozen=True)
class CachePoint:
    """One stored point of DIP-CA.

    Attributes:
        policy: Its policy.
        density: Target density.
        mlp_density: Measured density.
        gamma: γ.
        input_share: Share of the input's columns that its caches hold.
        neuron_share: Share of the neurons' columns that its caches hold.
        eviction: Its eviction rule.
        hits: Measured hit rate by site, caches empty at each sequence's start.
        quality: What it lost.
    """

    policy: Policy
    density: float
    mlp_density: float
    gamma: float
    input_share: float
    neuron_share: float
    eviction: str
    hits: dict[HookSite, float]
    quality: Quality

    @property
    def cache_share(self) -> float:
        """Share of the MLP's bytes that its caches hold: two of three linears follow the input's mask."""
        return (2 * self.input_share + self.neuron_share) / 3

    @property
    def is_uniform(self) -> bool:
        """Whether both sites have the same share."""
        return math.isclose(self.input_share, self.neuron_share)


@dataclass(frozen=True)
class Wanted:
    """A point of DIP-CA that is asked for.

    Attributes:
        density: Target density.
        gamma: γ.
        input_share: Share of the input's columns in the cache.
        neuron_share: Share of the neurons' columns in the cache.
        eviction: The eviction rule.
    """

    density: float
    gamma: float
    input_share: float
    neuron_share: float
    eviction: str = "lru"

    def distance(self, point: CachePoint) -> float:
        """Return how far a stored point is: the sum of the differences; losses follow the density most."""
        off = 2 * abs(point.density - self.density) + abs(point.gamma - self.gamma)
        off += abs(point.input_share - self.input_share) + 0.5 * abs(point.neuron_share - self.neuron_share)
        return off + (0 if point.eviction == self.eviction else _OTHER_RULE)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the policy that is exactly this point."""
        shares: dict[str, Any] = {"cache_share": round(self.input_share, 3)}
        if not math.isclose(self.input_share, self.neuron_share, abs_tol=5e-4):
            shares["neuron_cache"] = round(self.neuron_share, 3)
        return {"density": self.density, "gamma": self.gamma, **shares, "eviction": self.eviction}


@dataclass(frozen=True)
class Source:
    """One model and text on which densities and hit rates were measured.

    Attributes:
        model: Its name.
        text: Its name or path.
        window: Tokens of one window: the length of a sequence that starts with empty caches.
        dtype: Precision of the weights that ran.
        recordings: Plain DIP's, by rising measured density.
        points: DIP-CA's, without those of a warm-up or with exempt columns.
        losses: Plain DIP's losses, by its settings as JSON; of several, that on most tokens.
    """

    model: str
    text: str
    window: int
    dtype: str
    recordings: tuple[RecordingInfo, ...] = ()
    points: tuple[CachePoint, ...] = ()
    losses: dict[str, Quality] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name for people."""
        dtype = "" if self.dtype == "float32" else f" · {self.dtype}"
        return f"{self.model} · {self.text} · windows of {self.window:,}{dtype}"

    def recording(self, density: float) -> RecordingInfo | None:
        """Return the recording of plain DIP nearest to a density, None without any."""
        return min(self.recordings, key=lambda info: abs(target_density(info) - density), default=None)

    def loss(self, recording: RecordingInfo) -> Quality | None:
        """Return what the recorded policy lost, None if that was not measured."""
        return self.losses.get(_key(recording.description["settings"]))

    def nearest(self, wanted: Wanted) -> CachePoint | None:
        """Return the nearest stored point of DIP-CA, of equals that of most tokens; None without any."""
        return min(
            self.points,
            key=lambda point: (round(wanted.distance(point), 9), -point.quality.tokens),
            default=None,
        )

    def along_cache(self, density: float, gamma: float, eviction: str) -> list[CachePoint]:
        """Return the uniform points of one density, γ and rule, by rising cache; one a cache size."""
        found: dict[float, CachePoint] = {}
        for point in sorted(self.points, key=lambda point: point.quality.tokens):
            same = (point.density, point.gamma, point.eviction) == (density, gamma, eviction)
            if same and point.is_uniform:
                found[point.input_share] = point
        return [found[share] for share in sorted(found)]

    @cached_property
    def densities(self) -> list[float]:
        """The recorded densities of plain DIP."""
        return [target_density(info) for info in self.recordings]


def target_density(info: RecordingInfo) -> float:
    """Return the density a recording was asked for, or the measured one where it was not."""
    return float(info.description["settings"].get("density") or info.mlp_density)


def sources(store: Store, recordings: Iterable[RecordingInfo]) -> list[Source]:
    """Return what simulations can be fed with, that with most recordings and points first.

    Args:
        store: The results.
        recordings: What was recorded.
    """
    plain = [info for info in recordings if info.description["policy"] == PLAIN]
    stored = pd.concat([queries.points(store, policy=name) for name in (PLAIN, CACHE_AWARE)])
    stored = stored[stored["perplexity"].notna() & stored["delta_nll"].notna()]
    stored = stored[stored["stride"] == stored["window"]]
    hits = _hits(store)
    keyed: dict[tuple[Any, ...], tuple[list[RecordingInfo], list[pd.Series]]] = {}
    for info in plain:
        keyed.setdefault(_of_recording(info), ([], []))[0].append(info)
    for _, row in stored.iterrows():
        keyed.setdefault(_of_row(row), ([], []))[1].append(row)
    found = [_source(infos, rows, hits) for infos, rows in keyed.values()]
    useful = [source for source in found if source.recordings or source.points]
    return sorted(useful, key=lambda source: (-len(source.recordings), -len(source.points), source.label))


def _source(infos: Sequence[RecordingInfo], rows: Sequence[pd.Series], hits: pd.DataFrame) -> Source:
    if infos:
        said = infos[0].description
        named = (said["model"], said["text"], said["evaluation"]["window"], said["evaluation"]["dtype"])
    else:
        named = (rows[0]["model"], rows[0]["text"], int(rows[0]["window"]), rows[0]["dtype"])
    rows = sorted(rows, key=lambda row: int(row["tokens"]))
    losses = {_key(json.loads(row["settings"])): _quality(row) for row in rows if row["policy"] == PLAIN}
    aware = [row for row in rows if row["policy"] == CACHE_AWARE and row["cell_id"] in hits.index]
    every = [_cache_point(row, hits.loc[row["cell_id"]]) for row in aware]
    points = [p for p in every if not (p.policy.fixed_top_n or p.policy.warm_up)]  # type: ignore[attr-defined]
    by_density = sorted({target_density(info): info for info in infos}.items())
    return Source(*named, tuple(info for _, info in by_density), tuple(points), losses)


def _cache_point(row: pd.Series, hits: pd.Series) -> CachePoint:
    policy: Any = make_policy(CACHE_AWARE, json.loads(row["settings"]))
    share = policy.cache_share
    return CachePoint(
        policy=policy,
        density=float(policy.expected_density()),
        mlp_density=float(row["mlp_density"]),
        gamma=float(policy.gamma),
        input_share=float(share if policy.input_cache is None else policy.input_cache),
        neuron_share=float(share if policy.neuron_cache is None else policy.neuron_cache),
        eviction=str(policy.eviction),
        hits={"mlp_in": float(hits["hit_rate_mlp_in"]), "mlp_mid": float(hits["hit_rate_mlp_mid"])},
        quality=_quality(row),
    )


def _quality(row: pd.Series) -> Quality:
    stderr = None if pd.isna(row["delta_nll_stderr"]) else float(row["delta_nll_stderr"])
    delta = Estimate(float(row["delta_nll"]), stderr, int(row["scored_tokens"]))
    return Quality(
        str(row["cell_id"]), str(row["run_id"]), float(row["perplexity"]), delta, int(row["tokens"])
    )


def _hits(store: Store) -> pd.DataFrame:
    """Return DIP-CA's hit rates, one row a cell (index: cell_id), one column a metric."""
    long = store.frame(
        """
        SELECT cell_id, metric, value FROM measurements SEMI JOIN latest USING (cell_id, run_id)
        WHERE metric IN (SELECT unnest($metrics::VARCHAR[]))
        """,
        {"metrics": list(_HITS)},
    )
    wide = long.pivot(index="cell_id", columns="metric", values="value").reindex(columns=list(_HITS))
    return wide.dropna(subset=["hit_rate_mlp_in", "hit_rate_mlp_mid"])


def _of_recording(info: RecordingInfo) -> tuple[Any, ...]:
    said, evaluation = info.description, info.description["evaluation"]
    return said["model_sha256"], said["text_sha256"], evaluation["window"], evaluation["dtype"]


def _of_row(row: pd.Series) -> tuple[Any, ...]:
    return row["model_sha256"], row["text_sha256"], int(row["window"]), row["dtype"]


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
