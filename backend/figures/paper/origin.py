"""Where a figure's numbers came from: its runs, as the store knows them."""

from __future__ import annotations

from typing import Any

from backend.figures.paper.figure import PaperFigure, RunRecord
from backend.results import Store, queries


def with_runs(figure: PaperFigure, store: Store) -> PaperFigure:
    """Return the figure with a record of each run that its panels name; those it had are kept.

    Args:
        figure: The figure.
        store: The results; runs that it does not know get no record.
    """
    known = {record.run: record for record in figure.runs}
    named = dict.fromkeys(run for panel in figure.panels for run in panel.spec.provenance.runs)
    found = {run: record for run in named if (record := _record(store, run)) is not None}
    return figure.changed(runs=tuple((known | found).values()))


def _record(store: Store, run_id: str) -> RunRecord | None:
    stored = queries.run(store, run_id)
    if stored is None:
        return None
    said = stored.provenance
    return RunRecord(
        run=run_id,
        commit=said.get("commit") or "",
        packages=said.get("packages") or {},
        python=said.get("python") or "",
        device=said.get("device") or "",
        machine=said.get("machine") or {},
        threads=said.get("threads"),
        dtype=str((stored.spec.get("evaluation") or {}).get("dtype") or "float32"),
        seeds=_seeds(stored.spec),
    )


def _seeds(spec: dict[str, Any]) -> dict[str, int | None]:
    """Return the seeds of a run's methods that draw, the default where none was set."""
    from backend.methods import every_method

    methods = every_method()
    seeds: dict[str, int | None] = {}
    for policy in spec.get("policies") or ():
        named = policy.get("method")
        for method in named if isinstance(named, list) else [named]:
            if method in methods and "seed" in methods[method].model_fields:
                chosen = policy.get("seed", methods[method].model_fields["seed"].default)
                seeds[method] = chosen if isinstance(chosen, int) else None
    return seeds
