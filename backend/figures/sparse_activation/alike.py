"""How alike each metric ranks neurons to output magnitude, layer by layer, as a heat map."""

from __future__ import annotations

import pandas as pd

from backend.figures.curves import title_of
from backend.figures.heat_map import ColourScale, HeatMap
from backend.figures.sparse_activation.variants import variants, with_variants
from backend.figures.spec import Axis, FigureSpec
from backend.figures.trade_off import provenance_of

TITLES = {
    "rank_correlation": ("Rank correlation with output magnitude", "Spearman's ρ"),
    "top_overlap": ("Overlap of the kept neurons with those of output magnitude", "share"),
}


def alike_map(values: pd.DataFrame, metric: str) -> FigureSpec:
    """Return the heat map of metrics by layers.

    Args:
        values: Rows of one evaluation, as ``queries.layer_values`` returns them.
        metric: ``rank_correlation`` or ``top_overlap``.
    """
    title, unit = TITLES[metric]
    known = with_variants(values)
    layers = sorted(known["layer"].unique().tolist())
    rows, labels = [], []
    methods = tuple(dict.fromkeys(variant.policy for variant in variants(known)))
    for variant in variants(known):
        mine = known[known["variant"] == variant].drop_duplicates("layer", keep="last")
        found = dict(zip(mine["layer"], mine["value"].astype(float), strict=True))
        rows.append(tuple(found.get(layer) for layer in layers))
        labels.append(title_of(variant.policy) if variant.label == "own" else variant.title)
    span = (-1.0, 1.0) if metric == "rank_correlation" else (0.0, 1.0)
    return FigureSpec(
        title=title,
        x=Axis(label="Layer"),
        y=Axis(label=""),
        heat=HeatMap(
            rows=tuple(labels),
            columns=tuple(str(layer) for layer in layers),
            values=tuple(rows),
            scale=ColourScale(
                label=unit.capitalize(),
                kind="diverging" if metric == "rank_correlation" else "sequential",
                range=span,
            ),
        ),
        note=_note(known, metric),
        provenance=provenance_of(known).model_copy(update={"methods": methods}),
    )


def _note(known: pd.DataFrame, metric: str) -> str:
    if known.empty:
        return "Nothing is stored yet."
    worst = known["stderr"].max()
    spread = "" if worst != worst else f" Standard errors over windows are at most {worst:.3f}."
    chance = ""
    if metric == "top_overlap":
        keep = float(known["keep"].dropna().median())
        chance = f" At {keep:.0%} kept, chance alone gives {keep:.2f}."
    label = " Attributions are those of the dense model's own greedy token." if _own(known) else ""
    return f"Means over {int(known['n'].max()):,} tokens.{spread}{chance}{label}"


def _own(known: pd.DataFrame) -> bool:
    return any(variant.label == "own" for variant in known["variant"])
