"""How near one answer's text is to another's: BLEU and ROUGE-L, by the reference implementations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


def bleu(answer: str, reference: str) -> float:
    """Return the sentence's BLEU with effective order, 0 to 100 (sacrebleu; Papineni et al. 2002).

    Effective order leaves out the n-grams that an answer is too short for: without it, an answer under four
    tokens would score 0 even against itself.
    """
    return float(_bleu().sentence_score(answer, [reference]).score)


def corpus_bleu(answers: Sequence[str], references: Sequence[str]) -> float:
    """Return BLEU of all answers together, n-gram counts pooled, 0 to 100."""
    return float(_bleu().corpus_score(list(answers), [list(references)]).score)


def rouge_l(answer: str, reference: str) -> float:
    """Return ROUGE-L's F-measure, 0 to 1 (Lin 2004), without stemming."""
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


@cache
def _bleu() -> Any:
    from sacrebleu.metrics import BLEU

    return BLEU(effective_order=True)


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"])
