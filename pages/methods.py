"""Methods: each method's equations, paper, settings and limits, from the registry."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd
import streamlit as st

from backend.decoding.refusal import timed_methods
from backend.figures import STYLES, Axis, FigureSpec, Series, style_of
from backend.methods import Method, every_method
from backend.sparsity import METHODS, Policy
from pages._shared.address import Address
from pages._shared.figures import show_figure
from pages._shared.forms import range_text
from pages._shared.navigation import draw
from pages._shared.store import latencies, open_store

_SITES = {
    "mlp_in": "MLP input",
    "mlp_mid": "MLP neurons",
    "attn_in": "attention input",
    "attn_out": "attention output",
}
_KINDS = {"mask": "dense models", "routing": "mixtures of experts"}
_HOW = r"""
Everything here is read from the registries that the experiments run from: mask policies for dense models,
routing policies for mixtures of experts. A routing policy chooses the set $S$ of a token's experts from the
router's logits $z$, $w = \mathrm{softmax}(z)$, the experts by rank $r_1, r_2, \dots$ and what is in fast
memory before the token, $C_t$; the weights of what is chosen always come from $z$. A **site** is a place
where weights can be skipped: a mask over the MLP's input skips columns of $W_g$ and $W_u$, one over its
neurons skips rows of $W_g$ or $W_u$ and columns of $W_d$. What a method **needs** is computed for all
neurons before they are chosen, and so counts as read: that is its **floor**. **Label-free** methods do
not look at the token being predicted; **realisable** ones spend less on the mask than it saves. A
method that is not both is an oracle, and has no latency; of the others **Latency** counts the stored
timings (`python -m backend latency`). $T_k(s)$ is the mask of the $k$ largest entries of $s$, for each
token, ties broken by the lower index; $\rho$ is the share kept.
"""


def _latency_of(method: type[Method], timed: Counter[str]) -> str:
    """Say whether a method has a measured latency: "5 measured", "none yet", "none: an oracle"."""
    if not (method.realisable and method.label_free):
        return "none: an oracle"
    if method.kind == "mask" and method.name not in timed_methods():
        return "none: not decoded yet"
    return f"{timed[method.name]} measured" if timed[method.name] else "none yet"


def _overview(timed: Counter[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "Method": method.title,
                "Name": name,
                "For": _KINDS[method.kind],
                "Usable": method.realisable and method.label_free,
                "Density floor": method.density_floor() if issubclass(method, Policy) else None,
                "Latency": _latency_of(method, timed),
                "Swept by": method.sweep_setting or "–",
                "Sites": _sites(method),
                "Paper": method.paper or "–",
            }
            for name, method in _methods().items()
        ]
    )


def _methods() -> dict[str, type[Method]]:
    """Return every method by name, mask policies first."""
    return dict(sorted(every_method().items(), key=lambda item: item[1].kind))


def _sites(method: type[Method]) -> str:
    if not issubclass(method, Policy):
        return "router"
    return ", ".join(_SITES[site] for site in method.sites()) or "none"


def _density_figure() -> FigureSpec:
    """Return which share of the MLP weights methods read, by their sweep setting; equal ones are one line."""
    grid = [round(0.1 * step, 1) for step in range(1, 11)]
    alike: dict[tuple[float, ...], list[str]] = {}
    for name, method in METHODS.items():
        if method.sweep_setting is not None:
            read = [method.parse({method.sweep_setting: x}, name).expected_density() for x in grid]
            known = tuple(density for density in read if density is not None)
            if len(known) == len(grid):
                alike.setdefault(known, []).append(name)
    order = [*STYLES, *METHODS]
    series = tuple(
        Series(
            name=names[0],
            label=", ".join(METHODS[name].title for name in names),
            style=style_of(names[0]),
            x=tuple(grid),
            y=densities,
            details=tuple(
                f"{x:g} reads {y:.3f} of the MLP weights" for x, y in zip(grid, densities, strict=True)
            ),
        )
        for densities, found in alike.items()
        for names in [sorted(found, key=order.index)]
    )
    return FigureSpec(
        title="MLP density by setting",
        x=Axis(label="Setting", unit="keep; density for DIP", range=(0.0, 1.03)),
        y=Axis(label="MLP density", unit="share of MLP weights read", better="lower", range=(0.0, 1.05)),
        series=series,
        note="By formula. Where a line ends on the left is near the method's floor.",
    )


def _detail(name: str, timed: Counter[str]) -> None:
    method = every_method()[name]
    st.header(method.title, anchor=name)
    st.markdown(method.summary)
    with st.container(horizontal=True):
        oracle = not (method.realisable and method.label_free)
        st.badge(
            "oracle" if oracle else "usable", color="orange" if oracle else "green", icon=_icon(not oracle)
        )
        st.badge("label-free" if method.label_free else "looks at the label", icon=_icon(method.label_free))
        st.badge("realisable" if method.realisable else "not realisable", icon=_icon(method.realisable))
        known = bool(timed[name])
        label = "has a measured latency" if known else "no measured latency"
        st.badge(label, icon=":material/timer:" if known else ":material/timer_off:", color="gray")
        if method.looks_at_cache:
            st.badge("looks at the cache", icon=":material/memory:", color="gray")
    for line in [*_lines(method.equation), *_density_line(method)]:
        st.markdown(rf"$\displaystyle {line}$")
    if method.limits:
        st.markdown(f"**Limits.** {method.limits}")
    if issubclass(method, Policy):
        needs = ", ".join(sorted(method.needs)) or "nothing"
        floor = f"MLP density {method.density_floor():.3g}"
        st.markdown(f"**Sites.** {_sites(method)}. **Needs before it chooses.** {needs}. **Floor.** {floor}.")
    if method.paper:
        st.markdown(f"**Paper.** {_linked(method.paper)}")
    st.markdown("**Settings**")
    fields = method.describe()
    if not fields:
        st.caption("None.")
        return
    rows = [
        {
            "Setting": field.name,
            "Symbol": field.symbol or "–",
            "Range": range_text(field) or "–",
            "Unit": field.unit or "–",
            "Default": "off" if field.default is None else str(field.default),
            "Swept": "yes" if field.name == method.sweep_setting else "",
            "What it does": field.help,
        }
        for field in fields
    ]
    st.table(pd.DataFrame(rows), hide_index=True, border="horizontal", alt=f"Settings of {method.title}")


def _density_line(method: type[Method]) -> list[str]:
    if not issubclass(method, Policy):
        return []
    return [rf"\text{{MLP density}} = {method.density_formula}"]


def _lines(equation: str) -> list[str]:
    """Return the equations that a comma and a space part."""
    return re.split(r",\\(?:quad|,|;|\s)\s*", equation)


def _linked(paper: str) -> str:
    """Turn arXiv numbers into links."""
    words = paper.split(" ")
    for index, word in enumerate(words):
        number = word.rstrip(";,.")
        if index and words[index - 1] == "arXiv" and number.replace(".", "").isdigit():
            words[index] = f"[{number}](https://arxiv.org/abs/{number}){word.removeprefix(number)}"
    return " ".join(words)


def _icon(good: bool) -> str:
    return ":material/check:" if good else ":material/close:"


def page() -> None:
    """Draw the page."""
    st.title("Methods")
    st.markdown("What each method computes, reads and can be set to.")
    address = Address()
    timed = Counter(latencies(open_store())["policy"])
    overview = _overview(timed)
    st.dataframe(
        overview,
        hide_index=True,
        alt="All methods",
        key="overview",
        column_config={
            "Method": st.column_config.Column(pinned=True),
            "Density floor": st.column_config.NumberColumn(
                format="%.3f", help="Lowest MLP density it can reach"
            ),
            "Usable": st.column_config.CheckboxColumn(help="Label-free and realisable"),
        },
    )
    st.download_button(
        "Methods as CSV",
        lambda: overview.to_csv(index=False).encode(),
        "methods.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/download:",
    )
    titles = {method.title: name for name, method in _methods().items()}
    _detail(titles[address.choice("Method", list(titles), "method", default=METHODS["dip"].title)], timed)
    st.header("What a setting reads")
    show_figure(_density_figure(), "density")
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)


draw(page)
