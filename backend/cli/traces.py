"""Commands of routing traces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.options import HomeOption, JsonOption
from backend.cli.output import print_record
from backend.errors import UserError
from backend.home import Home
from backend.registry import did_you_mean


def misscurve(
    trace: Annotated[Path, typer.Argument(help="A routing trace (route_trace v1, CSV).")],
    policy: Annotated[str, typer.Option(help="lru, lfu or belady.")] = "lru",
    per_layer: Annotated[
        bool, typer.Option("--per-layer/--global", help="A cache per layer, or one.")
    ] = True,
    warm: Annotated[bool, typer.Option("--warm", help="Count decoded tokens only.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Miss rates of every cache size at once, from a recorded expert-routing trace."""
    from backend.residency import EVICTIONS, miss_curve

    if policy not in EVICTIONS:
        raise UserError(f"There is no eviction rule '{policy}'; {did_you_mean(policy, list(EVICTIONS))}")
    curve = miss_curve(trace, policy, scope="per-layer" if per_layer else "global", warm=warm)
    record = {
        "trace": trace.name, "policy": policy, "scope": "per-layer" if per_layer else "global", "warm": warm,
        "accesses": curve.accesses, "compulsory_misses": curve.first_uses,
        "miss_rate_by_capacity": {str(slots): rate for slots, rate in curve.miss_rates().items()},
    }  # fmt: skip
    if as_json:
        print(json.dumps(record))
        return
    for slots, rate in curve.miss_rates().items():
        print(f"{slots:>6} slots  miss rate {rate:.4f}")
    print(f"{curve.accesses} accesses, {curve.first_uses} compulsory misses.")


def import_trace(
    trace: Annotated[Path, typer.Argument(help="A routing trace (route_trace v1, CSV).")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a routing trace, so that the page Mixture of experts and figures can show it."""
    from backend.experiments import routing_records
    from backend.residency import RoutingRecord
    from backend.residency.route_trace import read_bytes

    at = Home.resolve(home)
    id = routing_records.import_trace(at, trace.name, read_bytes(trace))
    kept = RoutingRecord.load(routing_records.find_routing(at, id).path)
    record = {
        "routing": id, "name": trace.name, "layers": len(kept.layers), "experts": kept.experts,
        "experts_per_token": kept.experts_per_token, "tokens": kept.tokens,
    }  # fmt: skip
    print_record(record, as_json)


def export_trace(
    routing: Annotated[str, typer.Argument(help="A cell's id, or an imported trace's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The CSV to write.")],
    slots: Annotated[
        int | None, typer.Option(help="Say what a cache of so many experts a layer held.")
    ] = None,
    eviction: Annotated[str, typer.Option(help="That cache's rule: lru, lfu, random or belady.")] = "lru",
    home: HomeOption = None,
) -> None:
    """Write a stored routing as a trace (route_trace v1, CSV) that other tools read."""
    from backend.experiments.routing_records import find_routing
    from backend.residency import RoutingRecord, route_trace_lines
    from backend.residency.eviction import rule_code

    rule_code(eviction)  # a rule that there is not is refused, also where no cache asks for one
    record = RoutingRecord.load(find_routing(Home.resolve(home), routing).path)
    lines = list(route_trace_lines(record, slots, eviction))  # type: ignore[arg-type]
    try:
        output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"The trace cannot be written to {output} ({error.strerror}).") from error
    print(f"{record.tokens_kept} tokens of {len(record.layers)} layers are written to {output}.")
