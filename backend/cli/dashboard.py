"""The command that opens the dashboard."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from backend.cli.options import DataRootOption, HomeOption
from backend.home import REPOSITORY, Home, data_root


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
