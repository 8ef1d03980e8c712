"""Tokens a second of a mixture of experts with half of its experts in memory: original and Cache-Prior.

    python -m benchmarks.expert_store --data-root ../shared/data --text wikitext2     (about five minutes)

Experts that are missing are read from disk, past the page cache. Each policy decodes in turns with the same
arithmetic on experts that are all in memory ("resident") and with transformers' own ("stock"). Let nothing
run beside it. Below the measurements, the same misses on a simulated phone, by the experts' bit widths.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

from backend.decoding.direct_reader import BYPASSES
from backend.devices import EXPERT_BITS, ExpertSimulator, ExpertSimulatorSettings, MoEShape
from backend.experiments.evaluations import make_evaluation
from backend.experiments.laboratory import Laboratory
from backend.home import Home, data_root
from backend.routing import make_routing

COLUMNS = {
    "tokens_per_s": "tokens/s",
    "ms_per_token_median": "ms",
    "ms_per_token_p10": "p10",
    "ms_per_token_p90": "p90",
    "speed_of_resident": "× resident",
    "miss_rate": "miss rate",
    "misses_per_token": "misses",
    "waiting_ms": "waiting ms",
    "waiting_share": "waiting",
    "others_cpu_share": "others",
}


def main() -> None:
    """Print a table of measured and one of simulated speeds."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="smollm2-moe")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.5, help="share of the experts in memory")
    parser.add_argument("--lambda", dest="strengths", type=float, nargs="*", default=[0.2, 0.5])
    parser.add_argument("--readers", type=int, default=1, help="reads under way at once")
    parser.add_argument("--device", default="snapdragon-8-gen-3", help="the simulated device")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--text", default="prose")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--home", type=Path)
    arguments = parser.parse_args()
    laboratory = Laboratory(
        Home.resolve(arguments.home), data_root(arguments.data_root), "cpu", arguments.threads
    )
    print(f"{arguments.model}, {arguments.threads} threads, {arguments.share:.0%} of the experts in memory, "
          f"{arguments.prompt} + {arguments.tokens} tokens, {arguments.rounds} rounds")  # fmt: skip
    print(f"{'':<20}" + "".join(f"{title:>12}" for title in COLUMNS.values()))
    found: dict[str, dict[str, float]] = {}
    for name, settings in [("original", {})] + [("cache_prior", {"lambda_": s}) for s in arguments.strengths]:
        row = " ".join([name, *(f"λ={value:g}" for value in settings.values())])
        found[row] = _measured(laboratory, arguments, name, settings)
        print(f"{row:<20}" + "".join(f"{found[row][column]:>12.4g}" for column in COLUMNS), flush=True)
    _say_sides(found)
    _say_simulated(laboratory, arguments, found)


def _measured(
    laboratory: Laboratory, arguments: argparse.Namespace, name: str, settings: dict[str, Any]
) -> dict[str, float]:
    looks = {"cache_share": arguments.share} if name == "cache_prior" else {}
    evaluation = make_evaluation(
        {
            "kind": "expert_store", "text": arguments.text, "tokens": arguments.tokens,
            "prompt": arguments.prompt, "rounds": arguments.rounds, "readers": arguments.readers,
            "cache_share": arguments.share,
        }
    )  # fmt: skip
    policy = make_routing(name, settings | looks)
    evaluation.admit(policy)
    *_, result = evaluation.outcomes(laboratory, arguments.model, policy)
    return {each["metric"]: each["value"] for each in result.measurements(4)}


def _say_sides(found: dict[str, dict[str, float]]) -> None:
    rows = list(found.values())
    for side in ("resident", "stock"):
        ms = statistics.median(row[f"{side}_ms_per_token_median"] for row in rows)
        print(f"{side:<20}{1e3 / ms:>12.4g}{ms:>12.4g}")
    first = rows[0]
    rates = [row["load_bytes_per_s"] / 1e6 for row in rows if row["load_bytes_per_s"]]
    how = BYPASSES[int(first["page_cache_bypass"])]
    print(
        f"Page cache: {how}. Slots {first['slot_bytes'] / 1e6:.0f} of {first['experts_bytes'] / 1e6:.0f} MB; "
        f"loads came at {min(rates):.0f} to {max(rates):.0f} MB/s."
    )


def _say_simulated(
    laboratory: Laboratory, arguments: argparse.Namespace, found: dict[str, dict[str, float]]
) -> None:
    config = laboratory.subject(arguments.model, "float32").loaded.config.to_dict()
    shape = MoEShape.from_config(config, arguments.model)
    slots = int(arguments.share * shape.experts + 1e-9)
    print(f"\nSimulated on {arguments.device}, tokens/s by the bits of an expert's weight (bytes only):")
    print(f"{'':<20}" + "".join(f"{name:>12}" for name in EXPERT_BITS))
    for row, values in found.items():
        speeds = []
        for bits in EXPERT_BITS.values():
            settings = ExpertSimulatorSettings(expert_bits=bits)
            simulator = ExpertSimulator(arguments.device, shape, settings)
            speeds.append(simulator.at(slots, values["miss_rate"]).tokens_per_s)
        print(f"{row:<20}" + "".join(f"{speed:>12.4g}" for speed in speeds))


if __name__ == "__main__":
    main()
