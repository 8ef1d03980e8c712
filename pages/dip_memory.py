"""DIP and memory: how fast a model would run in how much DRAM, simulated from measured masks."""

from __future__ import annotations

import streamlit as st

from backend.errors import UserError
from backend.figures.headline import PAPER_DEVICE, headline_density, paper_dram_gb
from backend.figures.memory import hit_figure, speed_figure, time_figure
from backend.figures.memory_scene import Asked, Scene, is_exact, scene
from backend.figures.memory_sources import Source
from pages._shared.address import Address, place
from pages._shared.figures import show_figure
from pages._shared.latency_section import latency_section
from pages._shared.memory_controls import controls, preset_button
from pages._shared.memory_data import LOADERS, headline_rows, known_sources
from pages._shared.memory_offer import asked_runs, offer
from pages._shared.memory_read_out import headline_table, not_as_asked, read_out, where_from
from pages._shared.navigation import draw
from pages._shared.store import OpenStore, open_store

_HOW = r"""
- **Time of a token** is bytes over bandwidth at batch one, without compute:
  $t = t_\mathrm{static} + \sum_h (\mathrm{hits}_h/B_\mathrm{DRAM} + \mathrm{misses}_h/B_\mathrm{Flash})$,
  all in bytes, or the longer of the two where reads overlap. What every token reads (attention, head, KV
  cache) has to be in DRAM; what is left of it holds columns of the MLPs.
- **Dense streaming** runs the whole model through the same DRAM: what does not fit is read from Flash for
  every token.
- **DIP** has two hooks in each layer: a mask of inputs (columns of up and gate) and one of neurons (columns
  of down), each with a cache. Its masks do not look at the cache, so one recording gives the misses of
  *every* cache size. **DIP-CA** weighs down columns outside the cache by γ; its masks, hits and losses hold
  for one cache size, and are read from stored points.
- **Uniform** split: the same bytes for every linear. **Better**: caches grow where a byte saves most time.
- **4 bits** (MLPs and attention; 8 for embedding, head and KV cache) is a *count of bytes* in the simulator.
  Perplexity and ΔNLL are of the weights that really ran, as the model's note says.
- Shapes come from any model's config. A cache that holds some share of the columns is taken to have the hit
  rate recorded at that share, layer by layer at the same relative depth.
- `python benchmarks/headline.py` prints the headline's table for every shape.
- **Measured** decoding ran at batch one, in turns with the dense model in the same run. Bytes are weights as
  the kernels read them, and the KV cache in the middle of the timed tokens; the limit is the bandwidth of a
  plain read of memory, taken beside each round, over these bytes.
  `python -m backend latency --policy dip --set density=0.5` measures one point.
- Source of the simulator and of DIP: [arXiv 2412.01380](https://arxiv.org/abs/2412.01380).
"""


def page() -> None:
    """Draw the page."""
    st.title("DIP and memory")
    st.markdown("How fast a model that does not fit into memory would run, and what that costs in quality.")
    opened = open_store()
    address = Address()
    known = known_sources(opened)
    source = _source(address, known)
    left, right = st.columns([2, 5], gap="large")
    with left:
        preset_button(None if source is None else headline_density(source))
        asked = controls(address)
    with right:
        shown = _scene(asked, source)
        if shown is not None:
            with place():
                not_as_asked(shown)
            read_out(shown)
            where_from(shown, source)
            _speed(shown)
    _missing(opened, asked, source, shown)
    if shown is not None:
        st.header("Where the time goes, and what caches find")
        _below(shown)
    if source is not None:
        st.header("The paper's headline, at measured densities")
        _headline(opened, source, asked)
    st.caption(f"{asked.device.title}. {asked.device.source}")
    st.header("Measured, not simulated")
    latency_section(opened, address)
    with st.expander("How is this computed?", icon=":material/help:"):
        st.markdown(_HOW)


def _source(address: Address, known: list[Source]) -> Source | None:
    if not known:
        return None
    labels = {source.label: source for source in known}
    return labels[
        address.choice(
            "Measured on",
            list(labels),
            "source",
            help="The model and text of densities, hit rates and losses.",
        )
    ]


def _scene(asked: Asked, source: Source | None) -> Scene | None:
    try:
        shown = scene(asked, source, LOADERS)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        return None
    if shown is None:
        st.info(
            "No point of DIP-CA is stored. Its masks depend on the cache, so it has to run first.",
            icon=":material/science:",
        )
    return shown


def _speed(shown: Scene) -> None:
    asked = shown.asked
    spec = speed_figure(
        shown.dense, shown.lines, shown.here, asked.policy, log=asked.log, device=asked.device.title
    )
    show_figure(spec, "speed", height=400)


def _missing(opened: OpenStore, asked: Asked, source: Source | None, shown: Scene | None) -> None:
    """Offer the run where what is shown is not exactly what was asked for."""
    if shown is None or not is_exact(shown) or shown.subject.quality is None:
        offer(opened, asked, source, None if shown is None else shown.wanted)
    asked_runs(opened)


def _below(shown: Scene) -> None:
    asked = shown.asked
    show_figure(time_figure(shown.here, asked.policy), "time", height=230, paper=(5.5, 2.2))
    spec = hit_figure(shown.recording, asked.settings.start, shown.points, shown.here, asked.eviction)
    show_figure(spec, "hits", height=430)


def _headline(opened: OpenStore, source: Source, asked: Asked) -> None:
    dram = paper_dram_gb(asked.shape)
    st.markdown(
        f"The fastest measured point within each budget, for **{asked.shape.name}** in **{dram:.3g} GB** on "
        f"the paper's device ({PAPER_DEVICE}), in paper mode, against dense streaming through the same DRAM. "
        "Speed and memory are simulated; density, loss and hits were measured on the model that ran."
    )
    headline_table(headline_rows(opened, source, asked.shape))
    st.caption(
        "“+40 % from” is the least DRAM at which a point within the budget is 40 % faster. Perplexities "
        "differ between models: 0.1 of Phi-3-Medium's 4 is ΔNLL 0.025, of SmolLM2's 23 it is 0.004."
    )


draw(page)
