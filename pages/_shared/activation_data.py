"""What the page "Sparse activation" reads from the store, kept between draws."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from backend.experiments.sweep_files import SweepFile, sweep_files
from backend.figures.sparse_activation import Protocol, Verdict, verdicts
from backend.models import DEFAULT_MODEL
from backend.results import attribution, queries
from backend.results.coverage import coverage
from backend.sparsity import METHODS
from backend.sparsity.attribution import Attribution
from pages._shared.evaluation import evaluation_labels
from pages._shared.store import EVALUATION_KEYS, OpenStore

FAMILY = tuple(name for name, method in METHODS.items() if issubclass(method, Attribution))
"""The methods this page is about; a text counts where one of them was measured."""
LAYERED = ("rank_correlation", "top_overlap")
_ANSWER_KEYS = ("model_sha256", "text_sha256", "questions", "max_tokens", "form", "prompt", "dtype")


@dataclass(frozen=True)
class Model:
    """A model of which something is stored, or the default one.

    Attributes:
        label: Its name in the control, each once.
        name: Its name in sweeps.
        sha256: Hash of its weights; None if nothing is stored.
    """

    label: str
    name: str
    sha256: str | None


@dataclass(frozen=True)
class Stored:
    """What the store holds for this page: where answers, texts and layers were measured."""

    answers: pd.DataFrame
    texts: pd.DataFrame
    layers: dict[str, pd.DataFrame]

    def models(self) -> list[Model]:
        """Return every model, those with most cells first; the default one if there is none."""
        frames = [self.answers, self.texts, *self.layers.values()]
        rows = pd.concat([frame[["model", "model_sha256"]] for frame in frames]).drop_duplicates()
        found = [(str(name), str(sha)) for name, sha in rows.itertuples(index=False)]
        seen = Counter(name for name, _ in found)
        models = [Model(name if seen[name] == 1 else f"{name} ({sha[:6]})", name, sha) for name, sha in found]
        return models or [Model(DEFAULT_MODEL, DEFAULT_MODEL, None)]

    def evaluations(self, protocol: Protocol, model: Model) -> dict[str, dict[str, Any]]:
        """Return where a protocol was measured on a model: a name for people → the store's keys."""
        if protocol.form is None:
            table = self.texts[self.texts["model_sha256"] == model.sha256]
            labels = [label.split(" · ", 1)[1] for label in evaluation_labels(table)]
            keys: tuple[str, ...] = EVALUATION_KEYS
        else:
            of_form = self.answers["form"] == protocol.form
            table = self.answers[of_form & (self.answers["model_sha256"] == model.sha256)]
            labels = [_answers_label(row) for _, row in table.iterrows()]
            keys = _ANSWER_KEYS
        rows = ({str(k): _plain(v) for k, v in row.items()} for row in table[list(keys)].to_dict("records"))
        return dict(zip(labels, rows, strict=True))

    def layer_values(self, metric: str, model: Model) -> pd.DataFrame:
        """Return a metric's values by layer on a model, of the evaluation with most cells."""
        table = self.layers[metric]
        table = table[table["model_sha256"] == model.sha256]
        if table.empty:
            return table
        by = ["evaluation", "text_sha256", "dtype"]
        largest: Any = table.groupby(by)["cell_id"].nunique().idxmax()
        return table[(table[by] == list(largest)).all(axis=1)]


def stored(opened: OpenStore) -> Stored:
    """Return what there is."""
    found: Stored = _stored(opened, str(opened.home.root), opened.store.version)
    return found


def points_of(opened: OpenStore, keys: dict[str, Any]) -> pd.DataFrame:
    """Return the points of one evaluation."""
    found: pd.DataFrame = _points(
        opened, str(opened.home.root), opened.store.version, tuple(sorted(keys.items()))
    )
    return found


def verdicts_of(opened: OpenStore, model: Model) -> list[Verdict]:
    """Return what each protocol says of the claim on a model."""
    found: list[Verdict] = _verdicts(opened, str(opened.home.root), opened.store.version, model.sha256)
    return found


def coverages(opened: OpenStore, model: Model) -> list[tuple[SweepFile, int, int]]:
    """Return this page's sweeps, with how many of their cells are stored for a model, and of how many."""
    found: list[tuple[SweepFile, int, int]] = _coverages(
        opened, str(opened.home.root), opened.store.version, model.sha256
    )
    return found


def _answers_label(row: pd.Series) -> str:
    dtype = "" if row["dtype"] == "float32" else f" · {row['dtype']}"
    asked = f"{row['questions']} questions, at most {row['max_tokens']} tokens"
    return f"{row['text']} · {asked} · {row['prompt']}{dtype}"


def _plain(value: Any) -> Any:
    return getattr(value, "item", lambda: value)()


def _query_stored(_opened: OpenStore, root: str, version: int) -> Stored:
    store = _opened.store
    return Stored(
        attribution.answer_evaluations(store),
        queries.evaluations(store, policies=FAMILY),
        {metric: attribution.layer_values(store, metric) for metric in LAYERED},
    )


def _query_points(
    _opened: OpenStore, root: str, version: int, keys: tuple[tuple[str, Any], ...]
) -> pd.DataFrame:
    given = dict(keys)
    return (attribution.answer_points if "form" in given else queries.points)(_opened.store, **given)


def _query_verdicts(_opened: OpenStore, root: str, version: int, sha256: str | None) -> list[Verdict]:
    return [] if sha256 is None else verdicts(_opened.store, sha256)


def _query_coverages(
    _opened: OpenStore, root: str, version: int, sha256: str | None
) -> list[tuple[SweepFile, int, int]]:
    files = sweep_files("sparse-activation")
    return [(file, *coverage(_opened.store, file.sweep, sha256)) for file in files]


_stored = st.cache_resource(_query_stored, show_spinner=False, max_entries=4)
_points = st.cache_resource(_query_points, show_spinner=False, max_entries=16)
_verdicts = st.cache_resource(_query_verdicts, show_spinner=False, max_entries=8)
_coverages = st.cache_resource(_query_coverages, show_spinner=False, max_entries=8)
