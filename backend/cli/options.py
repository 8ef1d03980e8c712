"""Options that several commands share, and what their values mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from backend.errors import UserError

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


def settings_of(pairs: list[str]) -> dict[str, Any]:
    """Return ``--set`` options as settings; values are read as YAML, so lists and numbers work."""
    found = {}
    for each in pairs:
        key, value = pair_of(each, "--set")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"--set {each}: the value is no number, word or list.") from error
    return found


def pair_of(text: str, option: str) -> tuple[str, str]:
    """Return an option's key and value.

    Raises:
        UserError: It is not key=value.
    """
    key, found, value = text.partition("=")
    if not found or not key:
        raise UserError(f"{option} takes key=value, not '{text}'.")
    return key.strip(), value.strip()
