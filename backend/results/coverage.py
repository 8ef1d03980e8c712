"""How much of a sweep is stored for a model: what a page can show, and what has yet to be run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from backend.results.store import Store

if TYPE_CHECKING:
    from backend.experiments.sweep import Sweep


def coverage(store: Store, sweep: Sweep, model_sha256: str | None) -> tuple[int, int]:
    """Return how many of a sweep's cells are stored for one model, and how many there are.

    Versions of methods and of the evaluation count: a result of an older one is not what the sweep would
    make. The text goes by its name.

    Args:
        store: The store.
        sweep: The sweep, whatever model it names.
        model_sha256: Hash of the model's weights; None for a model of which nothing is stored.
    """
    asked = [
        (plan.policy.name, type(plan.policy).version, json.dumps(plan.policy.canonical(), sort_keys=True))
        for plan in sweep.plans()
    ]
    policies = {name: None for name, _, _ in asked}
    rows = store.rows(
        """
        SELECT policy, policy_version, settings::VARCHAR, evaluation::VARCHAR
        FROM cells SEMI JOIN results USING (cell_id)
        WHERE model_sha256 = $model AND policy IN (SELECT unnest($policies::VARCHAR[]))
        """,
        {"model": model_sha256, "policies": list(policies)},
    )
    wanted = {"version": sweep.evaluation.version, **sweep.evaluation.canonical()}
    same = {text for text in {row[3] for row in rows} if json.loads(text) == wanted}
    stored = {
        (name, version, json.dumps(json.loads(settings), sort_keys=True))
        for name, version, settings, evaluation in rows
        if evaluation in same
    }
    return sum(cell in stored for cell in asked), len(asked)
