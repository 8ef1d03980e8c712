"""Commands that simulate devices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.options import HomeOption, JsonOption, PolicyOption, SetOption, settings_of
from backend.cli.output import print_record
from backend.errors import UserError
from backend.home import Home


def simulate(
    device: Annotated[str, typer.Option(help="Device profile, as apple-a18.")],
    shape: Annotated[str, typer.Option(help="phi-3-medium, …, or a model's name or folder.")],
    dram_gb: Annotated[float, typer.Option("--dram-gb", help="DRAM the model may use, GB.")],
    policy: PolicyOption,
    settings: SetOption = None,
    trace: Annotated[Path | None, typer.Option(help="A recording made by `record`.")] = None,
    eviction: Annotated[str, typer.Option(help="With a recording: lru, lfu or belady.")] = "lru",
    option: Annotated[list[str] | None, typer.Option(help="A simulator setting as key=value.")] = None,
    paper_mode: Annotated[bool, typer.Option("--paper-mode", help="The paper's assumptions.")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a policy on a device, memory-bound, beside the dense model streamed from Flash."""
    from backend import devices
    from backend.experiments.recordings import load_recording
    from backend.models import CATALOG
    from backend.models.sources import resolve
    from backend.sparsity import make_policy

    assumed = devices.SimulatorSettings.paper() if paper_mode else devices.SimulatorSettings()
    changed = devices.SimulatorSettings.parse(
        {**assumed.model_dump(), **settings_of(option or [])}, "simulator"
    )
    chosen = make_policy(policy, settings_of(settings or []))
    known = shape in devices.SHAPES or shape not in CATALOG
    folder = None if known else resolve(shape, Home.resolve(home))
    if folder is not None and folder.derived is not None:
        raise UserError(f"{shape} routes among experts, and this simulates dense MLPs; name its dense model.")
    place = shape if folder is None else str(folder.path)
    hooks: Any = None if trace is None else load_recording(trace).hooks(eviction)  # type: ignore[arg-type]
    if chosen.looks_at_cache and hooks is None and not as_json:
        print("Without a recording the hit rates are a law that knows nothing of γ.", file=sys.stderr)
    found = devices.simulate(device, place, dram_gb, chosen, recorded=hooks, settings=changed)
    record = {
        "device": device, "shape": shape, "policy": policy, "settings": chosen.canonical(),
        "how": "simulated", "hits": "recorded" if hooks else "assumed: hit rate = share cached",
        **found.to_json(),
    }  # fmt: skip
    print_record(record, as_json)


def simulate_experts(
    device: Annotated[str, typer.Option(help="Device profile, as snapdragon-8-gen-3.")],
    shape: Annotated[str, typer.Option(help="olmoe-1b-7b, qwen3-30b-a3b, …, or a mixture's name or folder.")],
    slots: Annotated[int | None, typer.Option(help="Experts of each layer that are in memory.")] = None,
    dram_gb: Annotated[
        float | None, typer.Option("--dram-gb", help="In place of slots: the memory for all, GB.")
    ] = None,
    miss_rate: Annotated[
        float | None, typer.Option(help="Share of the experts used that are missing.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(help="In place of a miss rate: a routing trace (route_trace v1, CSV).")
    ] = None,
    eviction: Annotated[str, typer.Option(help="With a trace: lru, lfu, random or belady.")] = "lru",
    warm: Annotated[bool, typer.Option("--warm", help="With a trace: count decoded tokens only.")] = False,
    option: Annotated[
        list[str] | None, typer.Option(help="A simulator setting as key=value, as expert_bits=8.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a mixture of experts on a device whose memory holds some experts of each layer."""
    from backend.cli.experts import simulate_experts as simulated
    from backend.devices import MOE_SHAPES
    from backend.models import CATALOG
    from backend.models.sources import resolve

    known = shape in MOE_SHAPES or shape not in CATALOG
    place = shape if known else str(resolve(shape, Home.resolve(home)).path)
    record = simulated(
        device, place, slots=slots, dram_gb=dram_gb, miss_rate=miss_rate, trace=trace, eviction=eviction,
        warm=warm, options=settings_of(option or []),
    )  # fmt: skip
    print_record(record, as_json)
