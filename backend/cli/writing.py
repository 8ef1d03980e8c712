"""The command that writes texts."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from backend.cli.opening import any_store, laboratory_of
from backend.cli.options import (
    DataRootOption,
    DeviceOption,
    HomeOption,
    JsonOption,
    ModelOption,
    PolicyOption,
    SetOption,
    ThreadsOption,
    settings_of,
)
from backend.cli.output import Steps, print_record


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
    from backend.results import queries
    from backend.results.generations import generation

    policies = () if policy == "dense" else ({"method": policy, **settings_of(settings or [])},)
    request = GenerationRequest.parse(
        {
            "model": model, "prompts": (prompt,), "policies": policies, "max_tokens": max_tokens,
            "style": style, "temperature": temperature, "top_p": top_p, "seed": seed, "prefill": prefill,
            "order": order, "forced": forced, "dtype": dtype,
        },
        "generate",
    )  # fmt: skip
    request.plans()
    with Steps() as steps:
        laboratory = laboratory_of(home, root, device, threads, steps.report)
        folder = RunFolder.create(laboratory.home, request, "generation")
        run_generation(folder, laboratory, checkpoint=folder.raise_if_cancelled)
    with any_store(laboratory.home) as store:
        shown, run = generation(store, folder.id), queries.run(store, folder.id)
    assert shown is not None
    assert run is not None
    found = for_the_command_line(shown)
    if as_json:
        print(json.dumps({**found, "generation": as_record(shown, run)}))
        return
    print(found["text"])
    known = {key: value for key, value in found.items() if key not in ("text", "tokens")}
    print_record(known, as_json=False)
