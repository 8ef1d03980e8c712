"""Commands of what is stored: results, bundles, figures, the verdict."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from backend.cli.opening import any_store
from backend.cli.options import HomeOption, JsonOption, ModelOption, pair_of
from backend.errors import UserError
from backend.home import Home


def verdict(
    model: ModelOption = "smollm2-135m", home: HomeOption = None, as_json: JsonOption = False
) -> None:
    """Say from stored results whether 80 % sparsity costs under 5 %, and how much of that is the label."""
    from dataclasses import asdict

    from backend.figures.sparse_activation import answer, verdicts
    from backend.results import attribution, queries

    with any_store(Home.resolve(home)) as store:
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
    with any_store(Home.resolve(home)) as store:
        frame = queries.measurements(store, dict(pair_of(each, "--where") for each in where or []))
    content = frame.to_string(index=False).encode() + b"\n" if chosen == "table" else to_bytes(frame, chosen)
    if output is not None:
        output.write_bytes(content)
        print(f"{len(frame)} measurements written to {output}.", file=sys.stderr)
    else:
        sys.stdout.buffer.write(content)


def export(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the bundle.")],
    home: HomeOption = None,
) -> None:
    """Write a finished run as a bundle of small Parquet files, which another home can take in."""
    from backend.results import export_run

    with any_store(Home.resolve(home)) as store:
        export_run(store, run, output)
    print(f"Run {run} is written to {output}.")


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
    with any_store(at) as store:
        made = load_figure(spec, Stored(store, at))
    written = write_figure(made, output, html=html)
    if as_json:
        print(json.dumps({"figure": made.id, "title": made.title, "folder": str(output), "files": written}))
        return
    print(f"{made.title}: {len(written)} files in {output}.")
