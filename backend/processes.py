"""Processes by pid and start time, which together name one even when pids are given out again."""

from __future__ import annotations

import os
from typing import Any

import psutil


def process_identity() -> dict[str, Any]:
    """Return this process's ``pid`` and the time it ``started`` (Unix time, s)."""
    return {"pid": os.getpid(), "started": psutil.Process().create_time()}


def process_lives(identity: Any) -> bool:
    """Tell whether the process of :func:`process_identity` lives; a zombie or a wrong identity does not.

    Args:
        identity: Its ``pid`` and ``started``, which have to agree within a second.
    """
    try:
        running = psutil.Process(int(identity["pid"]))
        same = abs(running.create_time() - float(identity["started"])) <= 1.0
        return bool(same and running.status() != psutil.STATUS_ZOMBIE)
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
        return False
