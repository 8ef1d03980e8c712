"""Measured speed as a cost: points of an evaluation joined with latencies of the same weights and settings.

Speed belongs to a machine and to a way of timing (:class:`Setup`); only latencies of one setup are joined.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from backend.evaluation.statistics import estimate
from backend.figures.interpolation import Windows
from backend.figures.metrics import SPEED
from backend.figures.read_out import counts_of

FLOAT, INT8 = "float32", "int8"
LATENCY_COLUMNS = (
    SPEED, f"{SPEED}_stderr", "ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90",
    "dense_ms_per_token_median", "speedup", "speedup_stderr", "machine", "others_cpu_share",
    "disturbed_rounds", "lean_loop", "latency_run",
)  # fmt: skip
"""What a joined point says of its latency."""
_SAME = ["model_sha256", "policy", "policy_version", "settings", "dtype"]
_SETUP = ["machine", "prompt", "tokens", "execution", "prefill"]


@dataclass(frozen=True)
class Setup:
    """On what and how latencies were taken, all of which decides a time.

    Attributes:
        machine: Processor, cores, device and threads.
        prompt: Tokens of the prompt.
        tokens: Tokens timed a round.
        execution: "gathered" or "masked".
        prefill: How the prompt was read: "dense" or "sparse".
    """

    machine: str
    prompt: int
    tokens: int
    execution: str
    prefill: str

    @property
    def label(self) -> str:
        """Its name for people."""
        prefill = "" if self.prefill == "dense" else f", {self.prefill} prefill"
        return f"{self.machine} · {self.tokens} tokens after {self.prompt} · {self.execution}{prefill}"


def setups(latencies: pd.DataFrame) -> list[Setup]:
    """Return the setups of latencies: gathered ones first, those with most cells first.

    Args:
        latencies: Rows as :func:`backend.results.latencies.latencies` returns them.
    """
    if latencies.empty:
        return []
    counted = latencies.groupby(_SETUP).size().sort_values(ascending=False, kind="stable")
    named = [(str(m), int(p), int(t), str(e), str(f)) for m, p, t, e, f in counted.index]
    return sorted((Setup(*each) for each in named), key=lambda setup: setup.execution != "gathered")


def of_setup(latencies: pd.DataFrame, setup: Setup) -> pd.DataFrame:
    """Return the latencies of one setup, the latest of each point."""
    same = pd.Series(True, index=latencies.index)
    for name in _SETUP:
        same &= latencies[name] == getattr(setup, name)
    return latencies[same].sort_values("at", kind="stable").drop_duplicates(_SAME, keep="last")


def with_speed(points: pd.DataFrame, latencies: pd.DataFrame, setup: Setup | None) -> pd.DataFrame:
    """Return points with their measured speed (``LATENCY_COLUMNS``), NaN where none was measured.

    Joined are latencies of the same weights, policy, version, settings and precision. Absolute times drift
    with what else a machine does, from one cell to the next; a speed-up over dense, taken in turns in the
    same run, does not. So a point's speed is its speed-up times dense's speed, the median over all runs of
    that precision; its percentiles are scaled alike.

    Args:
        points: Rows of one evaluation, or of several, as :func:`backend.results.queries.points` returns them.
        latencies: Rows as :func:`backend.results.latencies.latencies` returns them.
        setup: Which of them; None for none.
    """
    bare = points.drop(columns=[name for name in LATENCY_COLUMNS if name in points])
    if setup is None or latencies.empty:
        return bare.reindex(columns=[*bare.columns, *LATENCY_COLUMNS])
    timed = of_setup(latencies, setup).rename(columns={"run_id": "latency_run"})
    versions = bare.loc[bare["policy"] == "dense", "policy_version"]
    rows: list[dict[Hashable, Any]] = []
    for _, group in timed.groupby(["model_sha256", "dtype"]):
        rows += _at_one_dense_speed(group).to_dict("records")
        if len(versions) and not (group["policy"] == "dense").any():
            rows.append(dense_beside(group) | {"policy_version": versions.iloc[-1]})
    every = pd.DataFrame(rows, columns=[*_SAME, *LATENCY_COLUMNS])
    return bare.merge(every, on=_SAME, how="left")


def _at_one_dense_speed(timed: pd.DataFrame) -> pd.DataFrame:
    """Return latencies of one model and precision as if dense had had its median time in each run."""
    median = timed["dense_ms_per_token_median"].median()
    scale = median / timed["dense_ms_per_token_median"]
    at_one = timed.copy()
    for name in ("ms_per_token_median", "ms_per_token_p10", "ms_per_token_p90", "dense_ms_per_token_median"):
        at_one[name] = timed[name] * scale
    at_one[SPEED] = 1e3 / median * timed["speedup"]
    at_one[f"{SPEED}_stderr"] = 1e3 / median * timed["speedup_stderr"]
    return at_one


def without_speed(points: pd.DataFrame) -> str:
    """Say how many joined points have no measured speed and how to measure it; "" if all have one."""
    missing = points[points[SPEED].isna()]
    oracles = int((missing["how"] == "oracle").sum())
    rest = len(missing) - oracles
    said = []
    if rest:
        left = (
            "1 point without a measured latency is"
            if rest == 1
            else f"{rest} points without a measured latency are"
        )
        said.append(
            f"{left} left out; “Measure its latency now” or `python -m backend latency` times one."
        )  # fmt: skip
    if oracles:
        said.append(
            f"{oracles} oracle point{'s have' if oracles > 1 else ' has'} no latency: an oracle needs what "
            "it counts as skipped."
        )
    return " ".join(said)


def beside(
    points: pd.DataFrame, windows: Windows, others: pd.DataFrame, other_windows: Windows
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Put points of another precision beside an evaluation's, with differences to the same dense model.

    The others' ΔNLL is taken anew, window by window, against the first evaluation's dense model; KL and
    agreement cannot be, and are left out.

    Args:
        points: Rows of one evaluation.
        windows: Window values of their cells, by metric, with "nll".
        others: Rows on the same windows of the same text in another precision.
        other_windows: Theirs.

    Returns:
        All points and all windows.
    """
    dense = points.loc[points["policy"] == "dense", "cell_id"]
    losses, others_losses = windows["nll"], other_windows["nll"]
    known = [cell for cell in dense if cell in losses.index]
    if not known:
        return points, dict(windows)
    paired = others_losses - losses.loc[known[-1]]
    others = others[others["cell_id"].isin(paired.index)].copy()
    counts = counts_of(points)
    for row, cell in zip(others.index, others["cell_id"], strict=True):
        found = estimate([float(value) for value in paired.loc[cell]], counts)
        others.loc[row, ["delta_nll", "delta_nll_stderr"]] = [found.value, found.stderr]
    others[["kl", "kl_stderr", "agreement", "agreement_stderr"]] = float("nan")
    merged = dict(windows) | {
        "nll": pd.concat([losses, others_losses]),
        "delta_nll": pd.concat([windows["delta_nll"], paired]),
    }
    return pd.concat([points, others], ignore_index=True), merged


@dataclass(frozen=True)
class Timed:
    """What one point's latency says, for people.

    Attributes:
        speed: "79.8 ± 4.8".
        range: Tokens/s at the slow and the fast tenth of tokens: "72.2–94.2".
        speedup: Over dense in the same run: "1.30 ± 0.03 ×".
        rounds: Whether others took part of the processor meanwhile.
        loop: Which loop decoded.
        machine: Processor, cores, device, threads.
    """

    speed: str
    range: str
    speedup: str
    rounds: str
    loop: str
    machine: str

    @classmethod
    def of(cls, row: pd.Series) -> Timed | None:
        """Return what a joined point says, None if it has no latency."""
        if pd.isna(row.get(SPEED)):
            return None
        said = cls(
            speed=_with_spread(row[SPEED], row[f"{SPEED}_stderr"], 1),
            range="–",
            speedup="1 (dense)",
            rounds="beside others" if pd.isna(row["disturbed_rounds"]) else "undisturbed",
            loop="lean" if row["lean_loop"] == 1 else "transformers",
            machine=str(row["machine"]),
        )
        if not pd.isna(row["ms_per_token_p90"]):
            slow, fast = 1e3 / row["ms_per_token_p90"], 1e3 / row["ms_per_token_p10"]
            said = replace(said, range=f"{slow:.1f}–{fast:.1f}")
        if not pd.isna(row["speedup"]) and row["policy"] != "dense":
            said = replace(said, speedup=f"{_with_spread(row['speedup'], row['speedup_stderr'], 2)} ×")
        if row["disturbed_rounds"] > 0:
            share = f"{100 * row['others_cpu_share']:.0f} %"
            rounds = int(row["disturbed_rounds"])
            said = replace(said, rounds=f"{rounds} disturbed (others took up to {share})")
        return said


def machines(rows: Sequence[Timed]) -> str:
    """Return the machines of several timings, each once."""
    return "; ".join(dict.fromkeys(row.machine for row in rows))


def _with_spread(value: float, stderr: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if pd.isna(stderr) else f"{text} ± {stderr:.{digits}f}"


def dense_beside(timed: pd.DataFrame) -> dict[str, Any]:
    """Return the dense model's row as it ran beside others: the median over their runs.

    Args:
        timed: Latencies of one setup, model and precision; at least one.
    """
    times = timed["dense_ms_per_token_median"]
    median = float(times.median())
    last = timed.iloc[-1]
    return {
        "model_sha256": last["model_sha256"],
        "dtype": last["dtype"],
        "policy": "dense",
        "settings": "{}",
        SPEED: 1e3 / median,
        f"{SPEED}_stderr": 1e3 / median * float(times.std()) / len(times) ** 0.5 / median,  # NaN for one run
        "ms_per_token_median": median,
        "dense_ms_per_token_median": median,
        "speedup": 1.0,
        "machine": last["machine"],
        "lean_loop": last["lean_loop"],
    }
