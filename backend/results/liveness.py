"""Whether the process that wrote a run still lives."""

from __future__ import annotations

import json

import psutil


def is_alive(provenance: str | None) -> bool:
    """Tell whether the process named in a run's provenance lives.

    A process id is given out again after its process ends (in a container at once), so the time at which
    the process started has to agree as well, within a second.

    Args:
        provenance: The run's provenance as JSON, with ``process``: ``pid`` and ``started`` (Unix time, s).
    """
    process = (json.loads(provenance) if provenance else {}).get("process") or {}
    try:
        running = psutil.Process(int(process["pid"]))
        same: bool = abs(running.create_time() - float(process["started"])) <= 1.0
        zombie: bool = running.status() == psutil.STATUS_ZOMBIE
        return same and not zombie
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
        return False
