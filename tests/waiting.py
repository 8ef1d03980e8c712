"""Waiting for what another process does, in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from backend.experiments.runs import RunFolder


def until(true: Callable[[], Any], seconds: float = 90) -> Any:
    """Return what ``true`` returns as soon as that is truthy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def of_kind(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    """Return a run's events of one kind, the oldest first."""
    return [event for event in folder.events() if event["kind"] == kind]
