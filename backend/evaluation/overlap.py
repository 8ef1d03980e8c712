"""Whether what a policy is fitted on is evaluated too: 13-grams of tokens that two readings share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

N = 13
"""Tokens of a run that two texts hardly share by chance. Brown et al. (arXiv 2005.14165, appendix C) take 13
words; tokens are shorter than words, so that this finds a little more."""


@dataclass(frozen=True)
class Overlap:
    """Common 13-grams.

    Attributes:
        common: How many of the evaluation's the calibration has too.
        whole: How many the evaluation has.
    """

    common: int
    whole: int

    @property
    def share(self) -> float:
        """Share of the evaluation's 13-grams; 0 if it is too short to have one."""
        return self.common / max(1, self.whole)


def overlap(calibration: Iterable[Sequence[int]], evaluation: Iterable[Sequence[int]]) -> Overlap:
    """Count the evaluation's 13-grams that the calibration has too; none reaches over a sequence's end.

    Args:
        calibration: Sequences of token ids that are read for calibration.
        evaluation: Those that are evaluated.
    """
    known = {run for sequence in calibration for run in _runs(sequence)}
    found = [run in known for sequence in evaluation for run in _runs(sequence)]
    return Overlap(sum(found), len(found))


def _runs(sequence: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return (tuple(sequence[at : at + N]) for at in range(len(sequence) - N + 1))
