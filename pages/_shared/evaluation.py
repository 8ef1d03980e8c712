"""Choosing what was evaluated: model, text, tokens and windows, of what the store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import streamlit as st

from backend.models import CATALOG
from pages._shared.address import Address
from pages._shared.store import EVALUATION_KEYS, OpenStore, evaluations, points


@dataclass(frozen=True)
class Chosen:
    """One evaluation of the store.

    Attributes:
        label: Its name for people.
        keys: The store's columns that make it, with their values.
        points: Its points.
    """

    label: str
    keys: dict[str, object]
    points: pd.DataFrame

    @property
    def windows(self) -> int:
        """Number of windows."""
        return int(self.keys["tokens"]) // int(self.keys["window"])  # type: ignore[call-overload, no-any-return]


def choose_evaluation(opened: OpenStore, address: Address) -> Chosen:
    """Return the evaluation chosen with a control; with an empty store the page says what to do and stops."""
    table = evaluations(opened)
    if table.empty:
        say_empty()
        st.stop()
    labels = evaluation_labels(table)
    label = address.choice(
        "Model, text and windows", labels, "evaluation", help="Only points of one evaluation can be compared."
    )
    return evaluation(opened, table, labels.index(label), label)


def first_evaluation(opened: OpenStore) -> Chosen | None:
    """Return the evaluation with most cells, None if the store is empty."""
    table = evaluations(opened)
    return None if table.empty else evaluation(opened, table, 0, evaluation_labels(table)[0])


def evaluation(opened: OpenStore, table: pd.DataFrame, place: int, label: str) -> Chosen:
    """Return the evaluation at one place of the table of evaluations."""
    row = table.iloc[place]
    keys = {key: getattr(row[key], "item", lambda key=key: row[key])() for key in EVALUATION_KEYS}
    return Chosen(label, keys, points(opened, keys))


def evaluation_labels(table: pd.DataFrame) -> list[str]:
    """Return a name for each evaluation, each once: "smollm2-135m · wikitext2 · 16 × 1024 tokens"."""
    rows = table[list(EVALUATION_KEYS)].to_dict("records")
    labels = [_label(row) for row in rows]
    seen = Counter(labels)
    return [
        label if seen[label] == 1 else f"{label} · {row['model_sha256'][:6]}/{row['text_sha256'][:6]}"
        for label, row in zip(labels, rows, strict=True)
    ]


def say_empty() -> None:
    """Say that nothing is stored yet, and how to change that."""
    st.info(
        "No results are stored yet. A small sweep takes a few minutes on a laptop.", icon=":material/science:"
    )
    st.page_link("pages/runs.py", label="Compose the first sweep", icon=":material/play_circle:")


def model_note(model: str) -> str:
    """Return what a reader of a model's numbers has to know, "" for a model of no catalog."""
    return CATALOG[model].notes if model in CATALOG else ""


def _label(row: dict[Hashable, Any]) -> str:
    windows = f"{row['tokens'] // row['window']} × {row['window']} tokens"
    stride = "" if row["stride"] == row["window"] else f", stride {row['stride']}"
    dtype = "" if row["dtype"] == "float32" else f" · {row['dtype']}"
    return f"{row['model']} · {row['text']} · {windows}{stride}{dtype}"
