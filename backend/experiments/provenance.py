"""Provenance: with what a run was made, so that it can be made again."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from backend.home import REPOSITORY
from backend.processes import process_identity

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas", "duckdb")


def provenance(device: str, threads: int) -> dict[str, Any]:
    """Return commit, packages, machine, device, threads and process, as plain JSON values.

    Args:
        device: Where the model runs ("cpu", "cuda").
        threads: torch's number of CPU threads.
    """
    return {
        "commit": _commit(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "device": device,
        "threads": threads,
        "process": process_identity(),
    }


def machine_name(device: str, threads: int) -> str:
    """Return what a latency depends on: processor, its cores, the device and torch's threads."""
    return _machine_name(_processor(), os.cpu_count(), device, threads)


def machine_of(made: Mapping[str, Any]) -> str:
    """Return the same name from a run's provenance; what an older run did not note is a question mark."""
    machine = made.get("machine") or {}
    processor, cores = machine.get("processor", "unknown processor"), machine.get("cores", "?")
    return _machine_name(processor, cores, made.get("device", "?"), made.get("threads", "?"))


def _machine_name(processor: str, cores: Any, device: str, threads: Any) -> str:
    return f"{processor}, {cores} cores, {device}, {threads} threads"


def _commit() -> str | None:
    """Return the git commit of the program, "+" behind it if files differ; None outside a checkout."""
    git = ["git", "-C", str(REPOSITORY)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if changes.stdout.strip() else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
