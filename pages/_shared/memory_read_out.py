"""The read-outs of "DIP and memory": the point's figures, where each comes from, the headline's table."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.figures.headline import PAPER_MEMORY_SAVED, PAPER_SPEEDUP, HeadlineRow
from backend.figures.memory_scene import Scene, is_exact
from backend.figures.memory_sources import CACHE_AWARE, Source, target_density
from backend.figures.memory_subjects import cache_share_at, caches_title
from pages._shared.text import as_rise, with_error


def read_out(shown: Scene) -> None:
    """Show the simulated and the measured figures of the point, each said which."""
    here, subject = shown.here, shown.subject
    st.markdown("**Simulated**")
    with st.container(horizontal=True, key="simulated"):
        _metric("Tokens/s", _short(here.tokens_per_s), f"×{here.speedup:.2f} dense streaming")
        _metric("Tokens/s, dense streamed", _short(here.dense_tokens_per_s), "the whole model, same DRAM")
        _metric(
            "Memory", f"{here.dram_gb:.3g} GB", f"{here.memory_saved:.1%} less than {here.model_gb:.3g} GB"
        )
        _metric("Hit rate", f"{here.hit_rate:.1%}", "of the MLP bytes read")
        _metric("From Flash per token", _bytes(shown.flash_bytes), f"dense {_bytes(shown.dense_flash_bytes)}")
    if here.speedup < 1 and shown.asked.settings.flash_by_read_size:
        st.markdown(
            "**Slower than streaming the dense model:** a column is a small read, at which this Flash is "
            "slow; the dense model streams in large ones."
        )
    quality = subject.quality
    st.markdown("**Measured**" if quality else "**Not measured yet**: what the simulated policy loses")
    if quality is not None:
        with st.container(horizontal=True, key="measured"):
            _metric("MLP density", f"{subject.mlp_density:.3f}", "share of MLP weights read")
            _metric("ΔNLL to dense", with_error(quality.delta_nll, sign=True), "nats/token, paired")
            _metric("Perplexity", f"{quality.perplexity:.2f}", f"dense {quality.dense_perplexity:.2f}")
            _metric("Rise over dense", as_rise(quality.delta_nll), f"on {quality.tokens:,} tokens")


def not_as_asked(shown: Scene) -> None:
    """Say which settings the stored point has, and which were asked, where they differ."""
    if is_exact(shown):
        return
    pairs = [(stored, asked) for stored, asked in _settings(shown) if stored != asked]
    if not pairs:
        return
    stored, asked = (", ".join(each) for each in zip(*pairs, strict=True))
    beside = ""
    if shown.subject.point is not None and shown.recording is not None:
        density = target_density(shown.recording.info)
        beside = f" DIP is drawn beside it at density {density:g}, with the same rule and split."
    st.info(
        f"**Stored: {stored}; asked: {asked}.** The stored point is shown.{beside}", icon=":material/rule:"
    )


def where_from(shown: Scene, source: Source | None) -> None:
    """Say what was measured on which model, and what is only carried over."""
    asked = shown.asked
    if source is None or (shown.subject.recorded is None and shown.subject.point is None):
        st.info(
            "Nothing is recorded here yet, so hit rates are **assumed**: each column as likely as any other, "
            "hit rate = share cached. A recording replaces that.",
            icon=":material/info:",
        )
        return
    said = [_measured_on(shown, source)]
    if asked.shape.name != source.model:
        said.append(
            f"**{asked.shape.name} itself did not run here**: its sizes are from its config; densities and "
            f"hit rates were recorded on {source.model}, and hold at the same relative depth and share of "
            f"columns cached. Losses are {source.model}'s."
        )
    st.caption("  \n".join(said))


def headline_table(rows: list[HeadlineRow]) -> None:
    """Show the claim beside what was found."""
    paper = {
        "Budget": "< 0.1 perplexity lost", "Policy": "the paper", "I/O": "in turn",
        "Split": "uniform", "Tokens/s vs dense": f"{PAPER_SPEEDUP:+.0%}",
        "Memory": f"−{PAPER_MEMORY_SAVED:.0%}", "MLP density": "–",
        "Perplexity lost": "< 0.1", "ΔNLL": "–", "Hit rate": "–", "Point": "Phi-3-Medium, arXiv 2412.01380",
        "+40 % from": "–",
    }  # fmt: skip
    st.dataframe(
        pd.DataFrame([paper, *(_headline_row(row) for row in rows)]),
        hide_index=True,
        key="headline_table",
        alt="Memory saved and speed won within a budget of quality, beside the paper's claim",
        height="content",
    )


def _headline_row(row: HeadlineRow) -> dict[str, str]:
    said = {
        "Budget": row.budget,
        "Policy": "DIP-CA" if row.policy == CACHE_AWARE else "DIP",
        "I/O": "overlapped" if row.overlap else "in turn",
        "Split": "better" if row.split == "optimised" else "uniform",
    }
    least = "–" if row.least_dram_gb is None else f"{row.least_dram_gb:.3g} GB"
    names = ("Tokens/s vs dense", "Memory", "MLP density", "Perplexity lost", "ΔNLL", "Hit rate")
    if row.subject is None or row.result is None:
        return {**said, **dict.fromkeys(names, "–"), "Point": "none measured", "+40 % from": least}
    quality, found = row.subject.quality, row.result
    values = (
        f"{found.speedup - 1:+.0%}".replace("-", "−"),
        f"−{found.memory_saved:.1%}",
        f"{row.subject.mlp_density:.3f}",
        "–" if quality is None else f"{quality.rise:+.2f}".replace("-", "−"),
        "–" if quality is None else with_error(quality.delta_nll, sign=True),
        f"{found.hit_rate:.1%}",
    )
    return {**said, **dict(zip(names, values, strict=True)), "Point": row.subject.label, "+40 % from": least}


def _settings(shown: Scene) -> list[tuple[str, str]]:
    """Return the stored point's settings in words, each with what was asked; none where nothing is stored."""
    asked, point, wanted = shown.asked, shown.subject.point, shown.wanted
    if point is None or wanted is None:
        if shown.recording is None:
            return []
        return [(f"density {target_density(shown.recording.info):g}", f"density {asked.density:g}")]
    return [
        (f"density {point.density:g}", f"density {asked.density:g}"),
        (f"γ {point.gamma:g}", f"γ {asked.gamma:g}"),
        (point.eviction.upper(), asked.eviction.upper()),
        (_split(point.is_uniform), _split(asked.settings.split == "uniform")),
        (caches_title(point), caches_title(wanted)),
    ]


def _split(uniform: bool) -> str:
    return "uniform split" if uniform else "better split"


def _measured_on(shown: Scene, source: Source) -> str:
    asked, point = shown.asked, shown.subject.point
    if point is not None:
        room = cache_share_at(asked.dram_gb, asked.shape, asked.settings)
        text = (
            "DIP-CA's masks depend on the cache, so its figures are **read from the stored grid**: the "
            f"nearest point is {shown.subject.label}, {point.eviction.upper()}, measured from empty caches "
            f"on {source.label}. This DRAM has room for {room:.1%} of the columns."
        )
        if asked.settings.split == "optimised" and point.is_uniform and shown.wanted is not None:
            wanted = shown.wanted
            text += (
                f" The better split would cache {wanted.input_share:.0%} of the inputs' columns and "
                f"{wanted.neuron_share:.0%} of the neurons'; no such point is stored, so this is uniform."
            )
        return text
    assert shown.recording is not None
    info = shown.recording.info
    near = "" if is_exact(shown) else f", the nearest to {asked.density:g}"
    return (
        f"Hit rates are **exact for every cache size**: recorded at density {target_density(info):g}{near}, "
        f"on {info.description['evaluation']['tokens']:,} tokens of {source.label}."
    )


def _metric(label: str, value: str, aside: str) -> None:
    st.metric(label, value, aside, delta_color="off", delta_arrow="off", width="content")


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _bytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.3g} MB"
