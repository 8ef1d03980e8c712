"""The command line: everything the pages can do, scriptable; thin over the functions the worker calls."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
import yaml

from backend.errors import UserError
from backend.home import REPOSITORY, Home, data_root
from backend.registry import did_you_mean

P = ParamSpec("P")
app = typer.Typer(
    name="python -m backend",
    help="Sparsity Lens: sparsity, accuracy and latency of language models, measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

HomeOption = Annotated[Path | None, typer.Option("--home", help="Home folder (default: data/home).")]
DataRootOption = Annotated[Path | None, typer.Option("--data-root", help="Folder with local data sets.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of torch.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
PolicyOption = Annotated[str, typer.Option(help="The method; `methods` lists them.")]
ModelOption = Annotated[str, typer.Option(help="Catalog name, hub id or folder.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="A setting as key=value; repeatable.")]
TextOption = Annotated[str, typer.Option(help="wikitext2, prose, or the path of a text file.")]
TokensOption = Annotated[int, typer.Option(help="Tokens fed: tokens/window windows.")]
WindowOption = Annotated[int, typer.Option(help="Tokens of one window; its first is not scored.")]


def sentences(command: Callable[P, None]) -> Callable[P, None]:
    """Turn a ``UserError`` into one sentence on stderr and exit status 2."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except UserError as error:
            print(error, file=sys.stderr)
            raise typer.Exit(2) from error

    return wrapped


@app.command()
@sentences
def models(as_json: JsonOption = False) -> None:
    """List the named models; a hub id or a folder serves too."""
    from backend.models import CATALOG, OTHER_SOURCES

    entries = [
        {"model": e.name, "title": e.title, "licence": e.licence, "notes": e.notes} for e in CATALOG.values()
    ]
    others = [{"source": o.title, "example": o.example, "help": o.help} for o in OTHER_SOURCES]
    if as_json:
        print(json.dumps({"models": entries, "other_sources": others}))
        return
    for entry in entries:
        print(f"{entry['model']:<16} {entry['title']} ({entry['licence']})\n{'':<16} {entry['notes']}")
    for other in others:
        print(f"{other['example']:<16} {other['source']}: {other['help']}")


@app.command()
@sentences
def methods(as_json: JsonOption = False) -> None:
    """List the methods with their settings, ranges and papers: mask policies, then routing policies."""
    from backend.methods import every_method

    described = [_method(each) for each in sorted(every_method().values(), key=lambda each: each.kind)]
    if as_json:
        print(json.dumps({"methods": described}))
        return
    for each in described:
        facts = [
            "realisable" if each["realisable"] else "oracle",
            "label-free" if each["label_free"] else "looks at the label",
        ]
        print(f"{each['method']:<16} {each['title']} ({', '.join(facts)}). {each['summary']}")
        for field in each["settings"]:
            print(f"{'':<16} {field['name']}: {field['range']}  {field['help']}")
        reads = [f"MLP density {each['density_formula']}"] if each["kind"] == "mask" else []
        if notes := [*reads, *filter(None, [each["paper"]])]:
            print(f"{'':<16} {'; '.join(notes)}")


@app.command()
@sentences
def fetch(model: str, home: HomeOption = None) -> None:
    """Download a model, check it, convert it once."""
    from backend.models.sources import resolve

    with _Steps() as steps:
        folder = resolve(model, Home.resolve(home), steps.report)
    print(f"{folder.name} is ready in {folder.path} (sha256 {folder.sha256}).")


@app.command(name="derive-moe")
@sentences
def derive_moe(
    base: Annotated[
        str, typer.Option(help="Dense model: a Llama by catalog name or folder.")
    ] = "smollm2-135m",
    name: Annotated[str, typer.Option(help="What the catalog calls the result.")] = "smollm2-moe",
    out: Annotated[Path | None, typer.Option(help="Folder of the result (default: data/moe/NAME).")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder of the stages (default: moe/NAME in the home).")
    ] = None,
    settings: SetOption = None,
    search: Annotated[
        bool, typer.Option("--search", help="Compare shapes under an oracle; train none.")
    ] = False,
    tokens: Annotated[int, typer.Option(help="Tokens of WikiText-2 to measure it on; 0 for none.")] = 16_384,
    window: WindowOption = 1_024,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    home: HomeOption = None,
    root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Derive a mixture of experts from a dense model; goes on where it was cut off."""
    import torch

    from backend.home import MOE
    from backend.models.derived_moe.deriving import derive, probe_shapes
    from backend.models.derived_moe.settings import parse_settings

    if threads is not None:
        torch.set_num_threads(threads)
    shape, training = parse_settings(_settings(settings or []))
    folder, at, texts = out or MOE / name, Home.resolve(home), data_root(root)
    with _Steps() as steps:
        if search:
            found = probe_shapes(name, base, at, texts, folder, work, shape, training, steps.report)
            if as_json:
                print(json.dumps({"moe": name, "shapes": found}))
                return
            for each in found:
                print("  ".join(f"{key} {value}" for key, value in each.items()))
            return
        manifest = derive(
            name, base, at, texts, folder, work, shape, training, tokens, window, device, steps.report
        )
    report = {key: value for key, value in manifest.report.items() if not isinstance(value, list | dict)}
    _print_record({"moe": name, "identity": manifest.identity, **report}, as_json)


@app.command()
@sentences
def measure(
    policy: PolicyOption,
    model: ModelOption = "smollm2-135m",
    settings: SetOption = None,
    text: TextOption = "wikitext2",
    tokens: TokensOption = 16_384,
    window: WindowOption = 1_024,
    stride: Annotated[int | None, typer.Option(help="Distance of windows; by default their length.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or int8.")] = "float32",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="A setting of the evaluation as key=value: prompt; of routing also cache_share, slots, "
            "eviction, start."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a method that draws.")] = None,
    home: HomeOption = None,
    root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure perplexity and fidelity of one policy on one text.

    A mask policy is paired with the dense model, a routing policy with the mixture's original routing.
    """
    from backend.experiments.measure import measure_point, quality_kind
    from backend.methods import every_method

    chosen = _settings(settings or [])
    if seed is not None and "seed" in every_method()[policy].model_fields:
        chosen.setdefault("seed", seed)
    evaluation = {
        "kind": quality_kind(policy), "text": text, "tokens": tokens, "window": window, "stride": stride,
        "dtype": dtype, **_settings(option or []),
    }  # fmt: skip
    with _Steps() as steps:
        laboratory = _laboratory(home, root, device, threads, steps.report)
        found = measure_point(laboratory, model, policy, chosen, evaluation, steps.progress)
    _print_record(found, as_json)


@app.command()
@sentences
def latency(
    policy: PolicyOption,
    model: ModelOption = "smollm2-135m",
    settings: SetOption = None,
    text: TextOption = "wikitext2",
    tokens: Annotated[int, typer.Option(help="Tokens timed in each round, at least 64.")] = 128,
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt, which is not timed.")] = 128,
    rounds: Annotated[int, typer.Option(help="How often the whole is repeated.")] = 3,
    batch: Annotated[int, typer.Option(help="Sequences at once; only 1 can be timed.")] = 1,
    execution: Annotated[str, typer.Option(help="gathered or masked.")] = "gathered",
    prefill: Annotated[str, typer.Option(help="How the prompt is read: dense or sparse.")] = "dense",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="A routing policy's store, as key=value: cache_share, slots, eviction, scope, direct, "
            "readers, prefetch, warm_up."
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or int8.")] = "float32",
    repeat: Annotated[int, typer.Option(help="Another number measures again what is known.")] = 0,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    home: HomeOption = None,
    root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time batch-one decoding of one policy on this machine.

    A mask policy runs in turns with the dense model; a routing policy with experts loaded from disk, in turns
    with all of them in memory and with transformers' own.
    """
    from backend.experiments.measure import latency_kind, measure_point

    evaluation = {
        "kind": latency_kind(policy), "text": text, "tokens": tokens, "prompt": prompt, "rounds": rounds,
        "dtype": dtype, "repeat": repeat, **_settings(option or []),
    }  # fmt: skip
    mask_settings = {"batch": batch, "execution": execution, "prefill": prefill}
    if evaluation["kind"] == "latency":
        evaluation |= mask_settings
    elif mask_settings != {"batch": 1, "execution": "gathered", "prefill": "dense"}:
        raise UserError(
            "--batch, --execution and --prefill belong to mask policies, not to routing policies."
        )
    with _Steps() as steps:
        laboratory = _laboratory(home, root, device, threads, steps.report)
        found = measure_point(
            laboratory, model, policy, _settings(settings or []), evaluation, steps.progress
        )
    _print_record(found, as_json)


@app.command()
@sentences
def generate(
    prompt: Annotated[str, typer.Option(help="What the model goes on from.")],
    policy: PolicyOption = "dense",
    model: ModelOption = "smollm2-135m",
    settings: SetOption = None,
    max_tokens: Annotated[int, typer.Option(help="Longest text, tokens.")] = 64,
    style: Annotated[str, typer.Option(help="chat (the model's template) or raw.")] = "chat",
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Share of probability that is drawn from.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    prefill: Annotated[str, typer.Option(help="How the policy reads the prompt: dense or sparse.")] = "dense",
    order: Annotated[str, typer.Option(help="together or in turn.")] = "in turn",
    forced: Annotated[bool, typer.Option(help="Also score the policy on the dense model's text.")] = True,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or int8.")] = "float32",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    home: HomeOption = None,
    root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a text under a policy beside the dense model's, every token measured and scored."""
    from backend.experiments.runs import RunFolder
    from backend.figures.strip_files import as_record, for_the_command_line
    from backend.generations import GenerationRequest
    from backend.generations.run import run_generation
    from backend.results.generations import generation

    policies = () if policy == "dense" else ({"method": policy, **_settings(settings or [])},)
    request = GenerationRequest.parse(
        {
            "model": model, "prompts": (prompt,), "policies": policies, "max_tokens": max_tokens,
            "style": style, "temperature": temperature, "top_p": top_p, "seed": seed, "prefill": prefill,
            "order": order, "forced": forced, "dtype": dtype,
        },
        "generate",
    )  # fmt: skip
    request.plans()
    with _Steps() as steps:
        laboratory = _laboratory(home, root, device, threads, steps.report)
        folder = RunFolder.create(laboratory.home, request, "generation")
        status = run_generation(folder, laboratory, checkpoint=folder.raise_if_cancelled)
    with _any_store(laboratory.home) as store:
        shown = generation(store, folder.id)
    assert shown is not None
    found = for_the_command_line(shown)
    if as_json:
        print(json.dumps({**found, "generation": as_record(shown, request.as_asked(), status)}))
        return
    print(found["text"])
    known = {key: value for key, value in found.items() if key not in ("text", "tokens")}
    _print_record(known, as_json=False)


@app.command()
@sentences
def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep file (YAML).")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this sweep's last unfinished run.")
    ] = False,
    executor: Annotated[str, typer.Option(help="Where it runs: local.")] = "local",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    home: HomeOption = None,
    root: DataRootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a sweep; cells that are known are found, not run."""
    from backend.experiments.known import known_results
    from backend.experiments.runner import run_sweep
    from backend.experiments.runs import RunFolder, latest_unfinished
    from backend.experiments.sweep import Sweep

    if executor != "local":
        raise UserError(f"There is no executor '{executor}'; known: local.")
    asked = Sweep.from_yaml(file)
    at = Home.resolve(home)
    folder = latest_unfinished(at, asked) if resume else None
    if resume and folder is None:
        print("This sweep has no unfinished run; a new one is begun.", file=sys.stderr)
    folder = folder or RunFolder.create(at, asked, "sweep")
    with _Steps() as steps:
        laboratory = _laboratory(home, root, device, threads, steps.report)
        status = run_sweep(
            folder, laboratory, known_results(at), checkpoint=folder.raise_if_cancelled, report=steps.progress
        )
    record = {"run": folder.id, "status": status, "cells": len(asked.plans())}
    print(json.dumps(record) if as_json else f"Run {folder.id}: {status}, {record['cells']} cells.")
    if status != "done":
        raise typer.Exit(1)


@app.command()
@sentences
def record(
    policy: PolicyOption,
    model: ModelOption = "smollm2-135m",
    settings: SetOption = None,
    text: TextOption = "wikitext2",
    tokens: TokensOption = 4_096,
    window: WindowOption = 1_024,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    home: HomeOption = None,
    root: DataRootOption = None,
) -> None:
    """Record what a policy's masks hit in caches of every size, for the simulator."""
    from backend.experiments.recorder import run_recording
    from backend.experiments.runs import RunFolder
    from backend.experiments.sweep import one_policy

    evaluation = {"text": text, "tokens": tokens, "window": window}
    asked = one_policy("record", model, policy, _settings(settings or []), evaluation)
    with _Steps() as steps:
        laboratory = _laboratory(home, root, device, threads, steps.report)
        folder = RunFolder.create(laboratory.home, asked, "recording")
        run_recording(folder, laboratory, checkpoint=folder.raise_if_cancelled, report=steps.progress)
    print(folder.failure())


@app.command()
@sentences
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
        {**assumed.model_dump(), **_settings(option or [])}, "simulator"
    )
    chosen = make_policy(policy, _settings(settings or []))
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
    _print_record(record, as_json)


@app.command("simulate-experts")
@sentences
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
    from backend.cli_experts import simulate_experts as simulated
    from backend.devices import MOE_SHAPES
    from backend.models import CATALOG
    from backend.models.sources import resolve

    known = shape in MOE_SHAPES or shape not in CATALOG
    place = shape if known else str(resolve(shape, Home.resolve(home)).path)
    record = simulated(
        device, place, slots=slots, dram_gb=dram_gb, miss_rate=miss_rate, trace=trace, eviction=eviction,
        warm=warm, options=_settings(option or []),
    )  # fmt: skip
    _print_record(record, as_json)


@app.command()
@sentences
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


@app.command()
@sentences
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
    _print_record(record, as_json)


@app.command()
@sentences
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


@app.command()
@sentences
def verdict(
    model: ModelOption = "smollm2-135m", home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Say from stored results whether 80 % sparsity costs under 5 %, and how much of that is the label."""
    from dataclasses import asdict

    from backend.figures.sparse_activation import answer, verdicts
    from backend.results import attribution, queries

    with _any_store(Home.resolve(home)) as store:
        known = [attribution.answer_evaluations(store), queries.evaluations(store)]
        hashes = {str(sha) for each in known for sha in each[each["model"] == model]["model_sha256"]}
        if not hashes:
            raise UserError(
                f"Nothing is stored of {model}; run data/sweeps/sparse-activation-forced.yaml with it first."
            )
        found = [each for sha in sorted(hashes) for each in verdicts(store, sha)]
    record = {"model": model, "answer": answer(found, model), "verdicts": [asdict(each) for each in found]}
    if as_json:
        print(json.dumps(record))
        return
    print("\n".join([str(record["answer"]), *(each.sentence for each in found)]))


@app.command()
@sentences
def results(
    where: Annotated[list[str] | None, typer.Option(help="Filter as column=value; repeatable.")] = None,
    format: Annotated[str, typer.Option(help="table, csv, json or parquet.")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write instead.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the measurements in the store, one row each."""
    from backend.results import queries
    from backend.results.export import to_bytes

    chosen = "json" if as_json else format
    with _any_store(Home.resolve(home)) as store:
        frame = queries.measurements(store, dict(_pair(each, "--where") for each in where or []))
    content = frame.to_string(index=False).encode() + b"\n" if chosen == "table" else to_bytes(frame, chosen)
    if output is not None:
        output.write_bytes(content)
        print(f"{len(frame)} measurements written to {output}.", file=sys.stderr)
    else:
        sys.stdout.buffer.write(content)


@app.command()
@sentences
def export(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle.")],
    home: HomeOption = None,
) -> None:
    """Write a finished run as a bundle of small Parquet files, which another home can take in."""
    from backend.results import export_run

    with _any_store(Home.resolve(home)) as store:
        export_run(store, run, output)
    print(f"Run {run} is written to {output}.")


@app.command()
@sentences
def figure(
    spec: Annotated[Path, typer.Argument(help="A recipe (YAML), or the figure.json of a bundle.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the files.")],
    html: Annotated[bool, typer.Option("--html", help="Write the interactive HTML too (5 MB).")] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a figure for a paper: PDF, SVG, PNG, PGFPlots, tables, data, and the bundle of all of them."""
    from backend.figures.paper.export import write_figure
    from backend.figures.recipes import Stored, load_figure

    at = Home.resolve(home)
    with _any_store(at) as store:
        made = load_figure(spec, Stored(store, at))
    written = write_figure(made, output, html=html)
    if as_json:
        print(json.dumps({"figure": made.id, "title": made.title, "folder": str(output), "files": written}))
        return
    print(f"{made.title}: {len(written)} files in {output}.")


@app.command(name="app")
@sentences
def open_app(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 8501,
    home: HomeOption = None,
    root: DataRootOption = None,
) -> None:
    """Open the dashboard."""
    import os
    import subprocess

    environment = {**os.environ, "SPARSITY_LENS_HOME": str(Home.resolve(home).root)}
    if (data := data_root(root)) is not None:
        environment["SPARSITY_LENS_DATA"] = str(data)
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(REPOSITORY / "app.py"),
        "--server.port",
        str(port),
    ]
    raise typer.Exit(subprocess.call(command, env=environment, cwd=REPOSITORY))


def _laboratory(home: Path | None, root: Path | None, device: str, threads: int | None, report: Any) -> Any:
    from backend.experiments.laboratory import Laboratory

    return Laboratory(Home.resolve(home), data_root(root), device, threads, report)


def _any_store(home: Home) -> Any:
    """Return the store, or what it holds while an app owns it."""
    from backend.results import Store, StoreBusy

    try:
        store = Store.open(home)
    except StoreBusy:
        return Store.in_memory(home)
    store.ingest()
    return store


def _method(policy: Any) -> dict[str, Any]:
    fields = [
        {
            "name": field.name,
            "default": None if field.default is None else field.default,
            "minimum": field.minimum,
            "maximum": field.maximum,
            "range": f"{'(' if field.minimum_excluded else '['}{field.minimum}, {field.maximum}]",
            "unit": field.unit,
            "help": field.help,
        }
        for field in policy.describe()
    ]
    facts = ("title", "summary", "paper", "limits", "realisable", "label_free", "looks_at_cache", "version")
    return {
        "method": policy.name,
        "kind": policy.kind,
        **{fact: getattr(policy, fact) for fact in facts},
        "density_formula": getattr(policy, "density_formula", ""),
        "settings": fields,
    }


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Return ``--set`` options as settings; values are read as YAML, so lists and numbers work."""
    found = {}
    for each in pairs:
        key, value = _pair(each, "--set")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {each}: the value is no number, word or list.") from error
    return found


def _pair(text: str, option: str) -> tuple[str, str]:
    key, found, value = text.partition("=")
    if not found or not key:
        raise UserError(f"{option} takes key=value, not '{text}'.")
    return key.strip(), value.strip()


def _print_record(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(record))
        return
    for key, value in record.items():
        shown = f"{value:.6g}" if isinstance(value, float) else value
        print(f"{key:<20} {shown}")


class _Steps:
    """Progress on stderr: a bar where it is a terminal, else nothing but new steps."""

    def __enter__(self) -> _Steps:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._bar.start()
        self._tasks: dict[str, Any] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def report(self, message: str, share: float | None) -> None:
        """Show a step of fetching or loading."""
        task = self._task(message, 100)
        self._bar.update(task, completed=100 * share if share is not None else 0)

    def progress(self, progress: Any) -> None:
        """Show how far a sweep is."""
        task = self._task("windows", progress.total)
        left = "" if progress.seconds_left is None else f"{progress.seconds_left / 60:.1f} min left"
        self._bar.update(task, completed=progress.done, left=f"{left}  {progress.cell}")

    def _task(self, name: str, total: int) -> Any:
        if name not in self._tasks:
            self._tasks[name] = self._bar.add_task(name, total=total, left="")
        return self._tasks[name]
