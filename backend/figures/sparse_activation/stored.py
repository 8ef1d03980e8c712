"""What the store holds of each protocol, for the verdict: the largest evaluation of each kind."""

from __future__ import annotations

from typing import Any

import pandas as pd

from backend.figures.sparse_activation.verdict import FREE, SUBJECT, Evidence, Verdict, verdict
from backend.results import Store, attribution, queries

FORMS = ("forced", "free")


def verdicts(store: Store, model_sha256: str) -> list[Verdict]:
    """Return what every protocol says of the claim on one model; those without its points are left out.

    Args:
        store: The store.
        model_sha256: Hash of the model's weights.
    """
    found = [_answers(store, model_sha256, form) for form in FORMS]
    found.append(_text(store, model_sha256))
    said = [None if each is None else verdict(each) for each in found]
    return [each for each in said if each is not None]


def _answers(store: Store, model_sha256: str, form: str) -> Evidence | None:
    table = attribution.answer_evaluations(store)
    table = table[(table["model_sha256"] == model_sha256) & (table["form"] == form)]
    if table.empty:
        return None
    keys = ("model_sha256", "text_sha256", "questions", "max_tokens", "form", "prompt", "dtype")
    first: dict[str, Any] = {key: table.iloc[0][key] for key in keys}
    first |= {key: int(first[key]) for key in ("questions", "max_tokens")}
    return _evidence(store, f"{form} answers", "bleu", attribution.answer_points(store, **first))


def _text(store: Store, model_sha256: str) -> Evidence | None:
    """Return the windows of a text on which both the paper's method and magnitude were measured."""
    table = queries.evaluations(store, policies=[SUBJECT])
    keys = ("model_sha256", "text_sha256", "tokens", "window", "stride", "dtype")
    for row in table[table["model_sha256"] == model_sha256][list(keys)].to_dict("records"):
        points = queries.points(store, kind="fidelity", **{str(key): value for key, value in row.items()})
        if {SUBJECT, FREE} <= set(points["policy"]):
            return _evidence(store, "teacher-forced text", "agreement", points)
    return None


def _evidence(store: Store, name: str, metric: str, points: pd.DataFrame) -> Evidence:
    return Evidence(name, metric, points, lambda cells, column: queries.window_values(store, cells, column))
