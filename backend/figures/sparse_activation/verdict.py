"""The verdict: does "80 % sparsity at under 5 % loss" hold, and how much of it is the label?

Said from the stored values, question by question (or window by window) with paired errors. A loss is relative
to the dense model: of BLEU against its own answers (100 by definition), or of top-1 agreement with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from backend.evaluation.statistics import Estimate, estimate
from backend.figures.sparse_activation.variants import WRONG, Variant, with_variants

SPARSITY = 0.8
ALLOWED_LOSS = 0.05
SUBJECT = "corrected_gxo"
FREE = "dense_magnitude"
ERRORS = 2.0
"""Standard errors that a loss has to keep from the limit for the claim to be decided."""
_NEAR = 1e-6
WindowValues = Callable[[list[str], str], pd.DataFrame]
"""(cells, metric) → one row a cell, one column a question or window: ``queries.window_values``."""


@dataclass(frozen=True)
class Evidence:
    """What one protocol stored.

    Attributes:
        name: The protocol in two words that a sentence can take up ("forced answers").
        metric: Column that the loss is of: ``bleu`` for answers, ``agreement`` for text.
        points: Its rows.
        values: Returns values by question or window.
    """

    name: str
    metric: str
    points: pd.DataFrame
    values: WindowValues

    @property
    def dense(self) -> float:
        """What the dense model has of the metric, by definition."""
        return 100.0 if self.metric == "bleu" else 1.0

    def of(self, variant: Variant, keep: float) -> list[float] | None:
        """Return the metric's values of one variant at one share kept, None where it was not measured."""
        row = self.row(variant, keep)
        if row is None:
            return None
        found = self.values([str(row["cell_id"])], self.metric)
        return None if found.empty else [float(value) for value in found.iloc[0].dropna()]

    def row(self, variant: Variant, keep: float) -> pd.Series | None:
        """Return the point of one variant at one share kept, None where it was not measured."""
        known = with_variants(self.points)
        known = known[(known["variant"] == variant) & ((known["keep"] - keep).abs() < _NEAR)]
        return None if known.empty else known.iloc[-1]


@dataclass(frozen=True)
class Verdict:
    """What one protocol says of the claim.

    Attributes:
        protocol: The protocol's name.
        loss: Share of the metric lost by the paper's method with its own label.
        gap: By how much that exceeds what the claim allows (negative: it keeps to it).
        holds: Whether the claim holds; None where the errors leave it open.
        wrong: Label → share lost with that wrong label.
        label_share: Label → how much of what the paper's method kept is gone with that wrong label, paired.
        label_free: Share lost by magnitude, which has no label; None where it was not measured.
        runs: The runs that measured it.
        sentence: All that in one sentence.
    """

    protocol: str
    loss: Estimate
    gap: Estimate
    holds: bool | None
    wrong: Mapping[str, Estimate]
    label_share: Mapping[str, Estimate]
    label_free: Estimate | None
    runs: tuple[str, ...]
    sentence: str


def verdict(evidence: Evidence, sparsity: float = SPARSITY) -> Verdict | None:
    """Return what a protocol says of the claim, None where its point was not measured.

    Args:
        evidence: The protocol's stored points.
        sparsity: Share of neurons dropped.
    """
    keep = 1 - sparsity
    own = evidence.of(Variant(SUBJECT, "own"), keep)
    if own is None:
        return None
    loss = _loss(own, evidence.dense)
    gap = Estimate(loss.value - ALLOWED_LOSS, loss.stderr, loss.n)
    wrong, share = {}, {}
    read = (Variant(SUBJECT, "own"), *(Variant(SUBJECT, label) for label in WRONG), Variant(FREE))
    rows = [row for each in read if (row := evidence.row(each, keep)) is not None]
    runs = tuple(sorted({str(row["run_id"]) for row in rows}))
    for label in WRONG:
        values = evidence.of(Variant(SUBJECT, label), keep)
        if values is not None and len(values) == len(own):
            wrong[label] = _loss(values, evidence.dense)
            share[label] = _lost_share(own, values)
    free = evidence.of(Variant(FREE), keep)
    label_free = None if free is None else _loss(free, evidence.dense)
    holds = _decided(gap)
    found = Verdict(evidence.name, loss, gap, holds, wrong, share, label_free, runs, "")
    return Verdict(**{**vars(found), "sentence": _sentence(found, evidence, sparsity)})


def answer(verdicts: list[Verdict], model: str) -> str:
    """Return the page's one sentence: does the claim hold on this model, and how much of it is the label?"""
    if not verdicts:
        return f"Nothing is stored yet that could test the claim on {model}."
    outcomes = {False: "does not hold", None: "is undecided", True: "holds"}
    said = []
    for outcome, words in outcomes.items():
        alike = [f"{v.protocol} (loss {_percent(v.loss)})" for v in verdicts if v.holds is outcome]
        if alike:
            said.append(f"{words} in {' and '.join(alike)}")
    text = f"On {model}, “80 % sparsity at under 5 % loss” " + "; it ".join(said)
    # The label and its absence are told of one protocol where one has both.
    told = sorted(verdicts, key=lambda v: (not v.label_share, v.label_free is None))[0]
    if told.label_share:
        parts = [
            f"made for {_LABEL_WORDS[name]} loses {_percent(share)}"
            for name, share in told.label_share.items()
        ]
        text += f". Of what it keeps in {told.protocol}, a mask {', one '.join(parts)}: the label's part"
    else:
        text += ". How much of that is the label was not measured"
    if told.label_free is not None:
        text += f"; without any label, magnitude loses {_percent(told.label_free)} there"
    return text + "."


_LABEL_WORDS = {"second": "the dense model's second choice", "random": "a random token"}


def _sentence(found: Verdict, evidence: Evidence, sparsity: float) -> str:
    name = "BLEU against the dense answer" if evidence.metric == "bleu" else "agreement with dense"
    outcome = {
        True: "keeps to the 5 % of the claim",
        False: "exceeds the 5 % of the claim",
        None: "cannot be told from the 5 % of the claim",
    }[found.holds]
    text = (
        f"{evidence.name.capitalize()}: with {sparsity:.0%} of the neurons dropped, corrected GxO made for "
        f"the token that is scored loses {_percent(found.loss)} of {name}, which {outcome}"
    )
    if found.wrong:
        told = (f"{_percent(loss)} for {_LABEL_WORDS[name]}" for name, loss in found.wrong.items())
        text += f"; made for another token it loses {' and '.join(told)}"
    if found.label_free is not None:
        text += f"; magnitude, which has no label, loses {_percent(found.label_free)}"
    return f"{text} (n = {found.loss.n}; ± one standard error)."


def _decided(gap: Estimate) -> bool | None:
    if gap.stderr is None or abs(gap.value) < ERRORS * gap.stderr:
        return None
    return gap.value < 0


def _loss(values: list[float], dense: float) -> Estimate:
    return estimate([1 - value / dense for value in values], [1] * len(values))


def _lost_share(own: list[float], wrong: list[float]) -> Estimate:
    """Return (own − wrong)/own of the means; its error by the ratio estimator over pairs."""
    n, kept = len(own), math.fsum(own) / len(own)
    ratio = 1 - math.fsum(wrong) / math.fsum(own) if kept else 0.0
    if n < 2 or not kept:
        return Estimate(ratio, None, n)
    residuals = [(a - b) - ratio * a for a, b in zip(own, wrong, strict=True)]
    spread = math.sqrt(math.fsum(r * r for r in residuals) / (n - 1) / n) / kept
    return Estimate(ratio, spread, n)


def _percent(found: Estimate) -> str:
    spread = "" if found.stderr is None else f" ± {100 * found.stderr:.1f}"
    return f"{100 * found.value:.1f}{spread} %".replace("-", "−")
