"""The command line: everything the pages can do, scriptable; thin over the functions the worker calls."""

from backend.cli.application import app

__all__ = ["app"]
