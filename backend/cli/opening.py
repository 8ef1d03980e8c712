"""What commands open: the laboratory and the store of a home."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend.home import Home, data_root


def laboratory_of(home: Path | None, root: Path | None, device: str, threads: int | None, report: Any) -> Any:
    """Return the models and texts that commands work with."""
    from backend.experiments.laboratory import Laboratory

    return Laboratory(Home.resolve(home), data_root(root), device, threads, report)


def any_store(home: Home) -> Any:
    """Return the store, or what it holds while an app owns it."""
    from backend.results import Store, StoreBusy

    try:
        store = Store.open(home)
    except StoreBusy:
        return Store.in_memory(home)
    store.ingest()
    return store
