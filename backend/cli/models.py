"""Commands of models and methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from backend.cli.options import (
    DataRootOption,
    DeviceOption,
    HomeOption,
    JsonOption,
    SetOption,
    ThreadsOption,
    WindowOption,
    settings_of,
)
from backend.cli.output import Steps, print_record
from backend.home import Home, data_root


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


def fetch(model: str, home: HomeOption = None) -> None:
    """Download a model, check it, convert it once."""
    from backend.models.sources import resolve

    with Steps() as steps:
        folder = resolve(model, Home.resolve(home), steps.report)
    print(f"{folder.name} is ready in {folder.path} (sha256 {folder.sha256}).")


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
    shape, training = parse_settings(settings_of(settings or []))
    folder, at, texts = out or MOE / name, Home.resolve(home), data_root(root)
    with Steps() as steps:
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
    print_record({"moe": name, "identity": manifest.identity, **report}, as_json)


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
