"""The abstract's claim of arXiv 2412.01380 at measured densities: memory saved, speed won within a budget.

    python -m benchmarks.headline [--home data/home] [--shape phi-3-medium] [--json]

Densities, hit rates and losses: measured on the model that ran. Tokens a second: simulated, paper mode.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

from backend.devices import SHAPES
from backend.experiments.recordings import load_recording, recordings
from backend.figures.headline import HeadlineRow, headline, paper_dram_gb
from backend.figures.memory_sources import sources
from backend.home import Home
from backend.results import Store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", type=Path)
    parser.add_argument("--shape", choices=list(SHAPES), action="append", help="repeatable; all by default")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    home = Home.resolve(asked.home)
    with Store.in_memory(home) as store:
        known = sources(store, recordings(home))
    if not known:
        print("Nothing is recorded; `python -m backend record --policy dip --set density=0.8` makes a start.")
        return
    records = []
    for source in known:
        for name in asked.shape or SHAPES:
            start = time.perf_counter()
            rows = headline(source, SHAPES[name], load_recording)
            seconds = time.perf_counter() - start
            dram = paper_dram_gb(SHAPES[name])
            records += [{"source": source.label, "shape": name, **record(row)} for row in rows]
            if not asked.json:
                print(f"\n{name} in {dram:.3f} GB; measured on {source.label} ({seconds:.1f} s)")
                print("\n".join(line(row) for row in rows))
    if asked.json:
        print(json.dumps({"rows": records}))
    else:
        print("\npaper: 46 % less memory, +40 % tokens/s, < 0.1 perplexity lost (Phi-3-Medium)")


def line(row: HeadlineRow) -> str:
    io = "max" if row.overlap else "sum"
    head = f"{row.budget:<22} {row.policy:<7} {io}  {row.split:<10}"
    least = "" if row.least_dram_gb is None else f"   +40 % from {row.least_dram_gb:.2f} GB on"
    if row.subject is None or row.result is None:
        return f"{head} no measured point within budget and DRAM{least}"
    found, quality = row.result, row.subject.quality
    lost = (
        ""
        if quality is None
        else f"ΔNLL {quality.delta_nll.value:+.4f} ± {quality.delta_nll.stderr or 0:.4f}"
    )
    return (
        f"{head} {100 * (found.speedup - 1):+6.1f} % ({found.tokens_per_s:.3f} tokens/s)  "
        f"−{100 * found.memory_saved:.1f} % memory  hits {found.hit_rate:.3f}  {lost}  "
        f"{row.subject.label}{least}"
    )


def record(row: HeadlineRow) -> dict[str, object]:
    said: dict[str, object] = {
        "budget": row.budget, "policy": row.policy, "split": row.split, "overlap": row.overlap,
        "least_dram_gb_for_paper_speedup": row.least_dram_gb, "how": "simulated",
    }  # fmt: skip
    if row.subject is not None and row.result is not None:
        quality = row.subject.quality
        said |= {"point": row.subject.label, "mlp_density": row.subject.mlp_density, **row.result.to_json()}
        said |= {} if quality is None else {
            "cell": quality.cell_id, "perplexity": quality.perplexity, "perplexity_rise": quality.rise,
            "delta_nll": dataclasses.asdict(quality.delta_nll),
        }  # fmt: skip
    return said


if __name__ == "__main__":
    main()
