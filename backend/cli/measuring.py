"""Commands that measure: one point, one latency, a sweep, a recording."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.opening import laboratory_of
from backend.cli.options import (
    DataRootOption,
    DeviceOption,
    HomeOption,
    JsonOption,
    ModelOption,
    PolicyOption,
    SetOption,
    TextOption,
    ThreadsOption,
    TokensOption,
    WindowOption,
    settings_of,
)
from backend.cli.output import Steps, print_record
from backend.errors import UserError
from backend.home import Home


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

    chosen = settings_of(settings or [])
    if seed is not None and "seed" in every_method()[policy].model_fields:
        chosen.setdefault("seed", seed)
    evaluation = {
        "kind": quality_kind(policy), "text": text, "tokens": tokens, "window": window, "stride": stride,
        "dtype": dtype, **settings_of(option or []),
    }  # fmt: skip
    with Steps() as steps:
        laboratory = laboratory_of(home, root, device, threads, steps.report)
        found = measure_point(laboratory, model, policy, chosen, evaluation, steps.progress)
    print_record(found, as_json)


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
        "dtype": dtype, "repeat": repeat, **settings_of(option or []),
    }  # fmt: skip
    mask_settings = {"batch": batch, "execution": execution, "prefill": prefill}
    if evaluation["kind"] == "latency":
        evaluation |= mask_settings
    elif mask_settings != {"batch": 1, "execution": "gathered", "prefill": "dense"}:
        raise UserError(
            "--batch, --execution and --prefill belong to mask policies, not to routing policies."
        )
    with Steps() as steps:
        laboratory = laboratory_of(home, root, device, threads, steps.report)
        found = measure_point(
            laboratory, model, policy, settings_of(settings or []), evaluation, steps.progress
        )
    print_record(found, as_json)


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
    with Steps() as steps:
        laboratory = laboratory_of(home, root, device, threads, steps.report)
        status = run_sweep(
            folder, laboratory, known_results(at), checkpoint=folder.raise_if_cancelled, report=steps.progress
        )
    record = {"run": folder.id, "status": status, "cells": len(asked.plans())}
    print(json.dumps(record) if as_json else f"Run {folder.id}: {status}, {record['cells']} cells.")
    if status != "done":
        raise typer.Exit(1)


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
    asked = one_policy("record", model, policy, settings_of(settings or []), evaluation)
    with Steps() as steps:
        laboratory = laboratory_of(home, root, device, threads, steps.report)
        folder = RunFolder.create(laboratory.home, asked, "recording")
        run_recording(folder, laboratory, checkpoint=folder.raise_if_cancelled, report=steps.progress)
    print(folder.failure())
