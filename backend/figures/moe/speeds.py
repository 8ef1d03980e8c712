"""Measured decoding with experts loaded from disk: tokens a second against the share that is in memory.

Only cells that were timed alike are joined by a line. Absolute times drift with what else a machine does; the
speed relative to all experts in memory, taken in turns in the same run, does not. So a point's speed is that
ratio times the median speed with all in memory, over the cells timed alike.
"""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from backend.figures.moe.policies import CACHE_SETTINGS, policy_title
from backend.figures.palette import style_of
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series
from backend.methods import every_method
from backend.routing.policy import RoutingPolicy

_LINE = (*CACHE_SETTINGS, "scope", "direct", "prefetch", "readers")
"""Settings of the store: they change its speed, not that of all experts in memory."""
_NOT_COMPARED = ("kind", "version", "repeat", *_LINE)
_READ = ("direct", "prefetch", "readers")
_UNSET = {"direct": True, "prefetch": False, "readers": 1}


def speed_figure(rows: pd.DataFrame, label: str) -> FigureSpec:
    """Return tokens a second against the share of experts in memory.

    Args:
        rows: Rows of :func:`backend.results.routing.store_speeds`, of one model, at least one.
        label: The model's name for people.
    """
    timed = rows.assign(setup=[_setup(row) for _, row in rows.iterrows()])
    names = _setup_names(list(dict.fromkeys(timed["setup"])))
    series: list[Series] = []
    baselines: list[Baseline] = []
    for setup, group in timed.groupby("setup", sort=False):
        aside = names[str(setup)]
        median = float(group["resident_ms_per_token_median"].median())
        stock = median * float(
            (group["stock_ms_per_token_median"] / group["resident_ms_per_token_median"]).median()
        )
        baselines.append(Baseline(value=1e3 / median, label=f"all experts in memory{aside}"))
        if not pd.isna(stock):
            baselines.append(Baseline(value=1e3 / stock, label=f"transformers, all in memory{aside}"))
        lines = pd.Series([_line(row) for _, row in group.iterrows()], index=group.index)
        for line in dict.fromkeys(lines):
            series.append(_series(group[lines == line], 1e3 / median, aside))
    machines = sorted(set(rows["machine"]))
    highest = max(*(each.value for each in baselines), *(y for each in series for y in each.y))
    return FigureSpec(
        title=f"Measured speed against experts in memory, {label}",
        x=Axis(label="Experts in memory", unit="% of routed experts", better="lower", range=(0.0, 102.0)),
        y=Axis(label="Tokens per second", unit="measured", better="higher", range=(0.0, 1.08 * highest)),
        series=tuple(series),
        baselines=tuple(baselines),
        note=_note(machines, timed),
        provenance=Provenance(
            runs=tuple(sorted(set(rows["run_id"]))),
            filters={"model": label, "machine": "; ".join(machines)},
            how=("measured",),
            methods=tuple(sorted(set(rows["policy"]))),
        ),
    )


def _note(machines: list[str], rows: pd.DataFrame) -> str:
    said = (
        f"Measured at batch one on {'; '.join(machines)}, in turns with all experts in memory: a point is "
        "its speed relative to that, times the median speed with all in memory over cells timed alike "
        "(line). Bars: ± one standard error over rounds."
    )
    if any(_fewer_experts(str(policy)) for policy in rows["policy"]):
        said += " All in memory runs the model's own routing, with all K experts, also beside fewer than K."
    return said


def _series(chosen: pd.DataFrame, resident: float, aside: str) -> Series:
    chosen = chosen.sort_values("cached_share", kind="stable")
    title = _title(chosen.iloc[0]) + aside
    policy = str(chosen.iloc[0]["policy"])
    spread = resident * chosen["speed_of_resident_stderr"]
    return Series(
        name=policy,
        label=title,
        style=style_of(policy),
        x=tuple((100 * chosen["cached_share"]).tolist()),
        y=tuple((resident * chosen["speed_of_resident"]).tolist()),
        y_err=tuple(None if pd.isna(each) else float(each) for each in spread),
        ids=tuple(chosen["cell_id"]),
        details=tuple(_detail(title, resident, row) for _, row in chosen.iterrows()),
    )


def _setup(row: pd.Series) -> str:
    """Return all that decides the speed with every expert in memory, as text that is equal if it is."""
    asked: dict[str, Any] = json.loads(row["evaluation"])
    same = {name: value for name, value in asked.items() if name not in _NOT_COMPARED}
    return json.dumps({"machine": str(row["machine"]), "dtype": str(row["dtype"]), **same}, sort_keys=True)


def _setup_names(setups: list[str]) -> dict[str, str]:
    """Return what tells each setup from the others, as ", float32, prompt 64"; "" for a single one."""
    every = [json.loads(setup) for setup in setups]
    keys = sorted({key for each in every for key in each})
    telling = [key for key in keys if len({json.dumps(each.get(key)) for each in every}) > 1]
    named = {}
    for setup, said in zip(setups, every, strict=True):
        parts = (str(said.get(k)) if k in ("machine", "dtype") else f"{k} {said.get(k)}" for k in telling)
        named[setup] = "".join(f", {part}" for part in parts)
    return named


def _line(row: pd.Series) -> str:
    """Return all that has to agree on a line: everything but how large the cache is."""
    asked: dict[str, Any] = json.loads(row["evaluation"])
    settings: dict[str, Any] = json.loads(row["settings"])
    own = {name: value for name, value in settings.items() if name not in CACHE_SETTINGS}
    store = {name: asked.get(name, _UNSET[name]) for name in _READ}
    scope = asked.get("scope", "per-layer")
    said = [row["policy"], own, _rule(asked, settings), scope, store]
    return json.dumps(said, sort_keys=True)


def _rule(asked: dict[str, Any], settings: dict[str, Any]) -> str:
    return str(settings.get("eviction") or asked.get("eviction") or "lru")


def _title(row: pd.Series) -> str:
    asked: dict[str, Any] = json.loads(row["evaluation"])
    settings: dict[str, Any] = json.loads(row["settings"])
    more = ", one cache for all" if asked.get("scope") == "global" else ""
    more += "" if asked.get("direct", True) else ", through the page cache"
    more += ", reading ahead" if asked.get("prefetch") else ""
    readers = int(asked.get("readers", 1))
    more += f", {readers} readers" if readers > 1 else ""
    return f"{policy_title(str(row['policy']), settings)}, {_rule(asked, settings).upper()}{more}"


def _detail(title: str, resident: float, row: pd.Series) -> str:
    disturbed = "\nDisturbed by other programs" if row["disturbed_rounds"] else ""
    return (
        f"{title}\n{resident * row['speed_of_resident']:.3g} tokens/s ({row['tokens_per_s']:.3g} in its own "
        f"run), {row['cached_share']:.0%} in memory\n×{row['speed_of_resident']:.2f} of all in memory; miss "
        f"rate {row['miss_rate']:.1%}{disturbed}"
    )


def _fewer_experts(policy: str) -> bool:
    """Return whether a policy may use fewer experts than the model's own routing."""
    method = every_method().get(policy)
    return method is not None and issubclass(method, RoutingPolicy) and method.may_use_fewer
