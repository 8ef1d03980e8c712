"""Prints the table of docs/derived-moe.md on cache-conditional routing, from the stored results.

python -m docs.moe_claims --home HOME
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import pandas as pd

from backend.devices import ExpertSimulator
from backend.experiments.routing_records import routing_records
from backend.figures.moe.policies import policy_title
from backend.home import Home
from backend.models import CATALOG, DERIVED_MOE
from backend.residency import RoutingRecord
from backend.results import Store
from backend.results.routing import routing_points, store_speeds

DEVICE, SLOTS, TOKENS = "snapdragon-8-gen-3", 64, 16_384
BUDGETS = (0.01, 0.03)


def rows(points: pd.DataFrame, belady: float) -> list[tuple[str, float, pd.Series | None]]:
    """Return what is compared: the original routing, Cache-Prior within each budget, Belady."""
    original = points[points["policy"] == "original"].iloc[0]
    found = [("original routing, LRU", float(original["miss_rate"]), original)]
    prior = points[points["policy"] == "cache_prior"]
    for budget in BUDGETS:
        within = prior[prior["delta_nll"].map(math.expm1) <= budget]
        if len(within):
            best = within.sort_values("miss_rate").iloc[0]
            title = policy_title("cache_prior", json.loads(best["settings"]))
            found.append((f"{title} (≤ {budget:.0%})", float(best["miss_rate"]), best))
    return [*found, ("original routing, Belady (oracle)", belady, None)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", type=Path)
    home = Home.resolve(parser.parse_args().home)
    sha = CATALOG[DERIVED_MOE].source.weights_sha256
    with Store.open(home) as store:
        store.ingest()
        points, speeds = routing_points(store), store_speeds(store)
    points = points[(points["model_sha256"] == sha) & (points["tokens"] == TOKENS)]
    speeds = speeds[speeds["model_sha256"] == sha].set_index("settings")
    original = points[points["policy"] == "original"].iloc[0]
    path = next(info.path for info in routing_records(home) if info.cell_id == original["cell_id"])
    belady = RoutingRecord.load(path).curve("belady").miss_rate(SLOTS)
    simulator = ExpertSimulator(DEVICE, DERIVED_MOE)
    base = simulator.at(SLOTS, float(original["miss_rate"])).tokens_per_s
    print("| routing | miss rate | perplexity | ΔNLL, nats | measured tokens/s | simulated phone |")
    print("|---|---:|---:|---:|---:|---:|")
    first = None
    for title, missed, row in rows(points, belady):
        rise = loss = measured = "–"
        if row is not None:
            rise = f"{100 * math.expm1(row['delta_nll']):+.2f} %" if row["policy"] != "original" else "–"
            loss = f"{row['delta_nll']:.4f} ± {row['delta_nll_stderr']:.4f}"
            timed = speeds[speeds.index == row["settings"]]
            if len(timed):
                speed = float(timed.iloc[0]["tokens_per_s"])
                first = first or speed
                measured = f"{speed:.1f} ({speed / first:.2f}×)"
        simulated = simulator.at(SLOTS, missed).tokens_per_s
        phone = f"{simulated:.0f} ({simulated / base:.2f}×)"
        print(f"| {title} | {missed:.1%} | {rise} | {loss} | {measured} | {phone} |")


if __name__ == "__main__":
    main()
