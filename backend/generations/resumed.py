"""Which prompts of a run were written to their end before: a resumed list goes on behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backend.generations.request import DENSE

_KINDS = (b'"kind":"generation_started"', b'"kind":"generation_side_ended"')
_HEAD = 100
"""Bytes of a line in which its kind stands; the tokens' long lines are not parsed."""


def complete_items(events: Path, forced: bool) -> dict[int, dict[str, Any]]:
    """Return the prompts whose sides all came to their end, each with what ``generation_started`` said of it.

    Args:
        events: The run's ``events.jsonl``; it may be absent.
        forced: Policies are also scored on the dense model's text.
    """
    begun: dict[int, dict[str, Any]] = {}
    ended: dict[int, set[tuple[int, str]]] = {}
    if not events.exists():
        return {}
    with events.open("rb") as file:
        for line in file:
            if not any(kind in line[:_HEAD] for kind in _KINDS):
                continue
            try:
                event = json.loads(line)
            except ValueError:  # ingest skips it too
                continue
            item = event["item"]
            if event["kind"] == "generation_started":
                begun[item] = {key: value for key, value in event.items() if key not in ("at", "kind")}
                ended[item] = set()
            elif event["ended"] != "stopped":
                ended.setdefault(item, set()).add((event["side"], event["form"]))
    return {item: said for item, said in begun.items() if _expected(said, forced) <= ended[item]}


def _expected(said: dict[str, Any], forced: bool) -> set[tuple[int, str]]:
    free = {(side["side"], "free") for side in said["sides"] if not side["no_text"]}
    scored = {(side["side"], "forced") for side in said["sides"] if side["side"] != DENSE}
    return free | scored if forced else free
