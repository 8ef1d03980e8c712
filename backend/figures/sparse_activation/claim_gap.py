"""The gap to the claim: what is lost at 80 % sparsity under each protocol, beside the 5 % that it allows."""

from __future__ import annotations

from backend.evaluation.statistics import Estimate
from backend.figures.sparse_activation.variants import WRONG, Variant
from backend.figures.sparse_activation.verdict import ALLOWED_LOSS, FREE, SUBJECT, Verdict
from backend.figures.spec import Axis, Baseline, FigureSpec, Provenance, Series

_KINDS: dict[Variant, str] = {
    Variant(SUBJECT, "own"): "own token",
    **{
        Variant(SUBJECT, label): {"second": "second choice", "random": "random token"}[label]
        for label in WRONG
    },
    Variant(FREE): "magnitude",
}
"""Masks by their short names: the label that corrected GxO is made for, and magnitude, which has none."""


def claim_gap(verdicts: list[Verdict], model: str) -> FigureSpec:
    """Return the losses at 80 % sparsity, one row for each protocol and mask.

    Args:
        verdicts: What each protocol says.
        model: The model's name.
    """
    rows = [
        (each, variant, loss)
        for each in verdicts
        for variant in _KINDS
        if (loss := _loss(each, variant)) is not None
    ]
    places = {(each.protocol, variant): len(rows) - 1 - n for n, (each, variant, _) in enumerate(rows)}
    ticks = tuple((float(places[each.protocol, variant]), _tick(each, variant)) for each, variant, _ in rows)
    drawn = [
        _series(
            variant,
            [(places[each.protocol, kind], each, loss) for each, kind, loss in rows if kind == variant],
        )
        for variant in _KINDS
    ]
    return FigureSpec(
        title=f"Loss at 80 % sparsity on {model}, by protocol and label",
        x=Axis(label="Loss", unit="% of the dense model's BLEU or agreement", better="lower"),
        y=Axis(label="", ticks=ticks, range=(-0.6, len(rows) + 0.2)),
        series=tuple(each for each in drawn if each.x),
        baselines=(Baseline(value=100 * ALLOWED_LOSS, label="5 %, the claim", axis="x"),),
        note="Error bars: ± one standard error over questions or windows. The gap is the distance to the "
        "claim's line. Answers lose BLEU against the dense answer, text top-1 agreement with dense.",
        provenance=Provenance(
            runs=tuple(sorted({run for each in verdicts for run in each.runs})),
            filters={"model": model},
            how=("oracle",),
            methods=(SUBJECT, FREE),
        ),
    )


def _tick(found: Verdict, variant: Variant) -> str:
    """Name a row; the first of a protocol names the protocol too."""
    first = next(iter(_KINDS))
    return f"{found.protocol.capitalize()}: {_KINDS[variant]}" if variant == first else _KINDS[variant]


def _series(variant: Variant, rows: list[tuple[int, Verdict, Estimate]]) -> Series:
    return Series(
        name=variant.key,
        label=variant.title,
        style=variant.style,
        kind="markers",
        x=tuple(100 * loss.value for _, _, loss in rows),
        y=tuple(float(place) for place, _, _ in rows),
        x_err=tuple(None if loss.stderr is None else 100 * loss.stderr for _, _, loss in rows),
        details=tuple(
            f"{variant.title}\n{each.protocol.capitalize()}: loss {100 * loss.value:.1f} % (n = {loss.n})"
            for _, each, loss in rows
        ),
    )


def _loss(found: Verdict, variant: Variant) -> Estimate | None:
    if variant.policy == FREE:
        return found.label_free
    return found.loss if variant.label == "own" else found.wrong.get(variant.label)
