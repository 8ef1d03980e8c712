"""The command line itself, and how its errors are told."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from backend.cli import dashboard, measuring, models, simulating, stored, traces, writing
from backend.errors import UserError

P = ParamSpec("P")
COMMANDS: dict[str, Callable[..., None]] = {
    "app": dashboard.open_app,
    "models": models.models,
    "methods": models.methods,
    "fetch": models.fetch,
    "derive-moe": models.derive_moe,
    "measure": measuring.measure,
    "latency": measuring.latency,
    "sweep": measuring.sweep,
    "record": measuring.record,
    "simulate": simulating.simulate,
    "simulate-experts": simulating.simulate_experts,
    "misscurve": traces.misscurve,
    "import-trace": traces.import_trace,
    "export-trace": traces.export_trace,
    "generate": writing.generate,
    "verdict": stored.verdict,
    "results": stored.results,
    "figure": stored.figure,
    "export": stored.export,
}
"""Every command, in the order of the help."""


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


app = typer.Typer(
    name="python -m backend",
    help="Sparsity Lens: sparsity, accuracy and latency of language models, measured.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for name, command in COMMANDS.items():
    app.command(name)(sentences(command))
