"""The verdict on top of the page "Sparse activation": one sentence, and the numbers it is made of."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.evaluation.statistics import Estimate
from backend.figures.sparse_activation import Verdict, answer
from pages._shared.text import with_error

_HOLDS = {True: "holds", False: "does not hold", None: "undecided"}


def show_verdict(verdicts: list[Verdict], model: str) -> None:
    """Show the answer, then a row for each protocol that was measured."""
    with st.container(border=True):
        st.markdown(f"**{answer(verdicts, model)}**")
        if not verdicts:
            return
        st.dataframe(
            pd.DataFrame([_row(each) for each in verdicts]),
            hide_index=True,
            key="verdict_table",
            alt="Losses at 80 % sparsity by protocol and label",
            column_config={"Protocol": st.column_config.Column(pinned=True)},
        )
        st.caption(
            "Losses of corrected GxO made for the dense model's own greedy token, for its second choice and "
            "for a random token, and of output magnitude, which has no label. They are shares of the dense "
            "model's BLEU against its own answers (100 by definition), or of top-1 agreement with it, at "
            "80 % of the MLP neurons dropped; ± one standard error over questions or windows. A claim is "
            "decided two standard errors from its 5 %. The label's part is the paired share of what the "
            "right label kept that is gone with the wrong ones, in the order of their columns."
        )


def _row(found: Verdict) -> dict[str, str | int]:
    return {
        "Protocol": found.protocol,
        "Under 5 % loss": _HOLDS[found.holds],
        "Loss ↓": _percent(found.loss),
        "Beyond 5 %": _percent(found.gap, sign=True),
        "Second choice": _percent(found.wrong.get("second")),
        "Random token": _percent(found.wrong.get("random")),
        "Label's part": " · ".join(map(_percent, found.label_share.values())) or "not measured",
        "Magnitude": _percent(found.label_free),
        "n": found.loss.n,
    }


def _percent(found: Estimate | None, *, sign: bool = False) -> str:
    if found is None:
        return "not measured"
    spread = None if found.stderr is None else 100 * found.stderr
    return f"{with_error(Estimate(100 * found.value, spread, found.n), '{:.1f}', sign=sign)} %"
