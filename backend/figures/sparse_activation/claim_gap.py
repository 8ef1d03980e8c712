"""The gap to the claim: what is lost at 80 % sparsity under each protocol, beside the 5 % that it allows."""

from __future__ import annotations

from backend.evaluation.statistics import Estimate
from backend.figures.sparse_activation.variants import WRONG, Variant
from backend.figures.sparse_activation.verdict import ALLOWED_LOSS, FREE, SUBJECT, Verdict
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series

_SPREAD = 0.6
"""Height that the series of one protocol share, of a row of 1."""


def claim_gap(verdicts: list[Verdict], model: str) -> FigureSpec:
    """Return the losses at 80 % sparsity: a row a protocol, a series for each label and for magnitude.

    Args:
        verdicts: What each protocol says.
        model: The model's name.
    """
    kinds = [Variant(SUBJECT, "own"), *(Variant(SUBJECT, label) for label in WRONG), Variant(FREE)]
    series = [
        _series(verdicts, variant, _SPREAD * (0.5 - place / (len(kinds) - 1)))
        for place, variant in enumerate(kinds)
    ]
    last = len(verdicts) - 1
    ticks = tuple((float(last - place), each.protocol.capitalize()) for place, each in enumerate(verdicts))
    return FigureSpec(
        title=f"Loss at 80 % sparsity on {model}, by protocol and label",
        x=Axis(label="Loss", unit="% of the dense model's BLEU or agreement", better="lower"),
        y=Axis(label="", ticks=ticks, range=(-0.5, last + 0.5)),
        series=tuple(each for each in series if each.x),
        baselines=(Baseline(value=100 * ALLOWED_LOSS, label="5 %: the claim", axis="x", role="claim"),),
        note="Error bars: ± one standard error over questions or windows. The gap is the distance to the "
        "claim's line. Answers lose BLEU against the dense answer, text top-1 agreement with dense.",
        provenance=Provenance(
            runs=tuple(sorted({run for each in verdicts for run in each.runs})),
            filters={"model": model},
            how=("oracle",),
            methods=(SUBJECT, FREE),
        ),
    )


def _series(verdicts: list[Verdict], variant: Variant, offset: float) -> Series:
    last = len(verdicts) - 1
    found = [(last - place + offset, each, _loss(each, variant)) for place, each in enumerate(verdicts)]
    known = [(y, each, loss) for y, each, loss in found if loss is not None]
    return Series(
        name=variant.key,
        label=variant.title,
        style=variant.style,
        kind="markers",
        x=tuple(100 * loss.value for _, _, loss in known),
        y=tuple(y for y, _, _ in known),
        x_err=tuple(None if loss.stderr is None else 100 * loss.stderr for _, _, loss in known),
        details=tuple(
            f"{variant.title}\n{each.protocol.capitalize()}: loss {100 * loss.value:.1f} % (n = {loss.n})"
            for _, each, loss in known
        ),
    )


def _loss(found: Verdict, variant: Variant) -> Estimate | None:
    if variant.policy == FREE:
        return found.label_free
    return found.loss if variant.label == "own" else found.wrong.get(variant.label)
