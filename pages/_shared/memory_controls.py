"""The controls of the page "DIP and memory", and what they ask for."""

from __future__ import annotations

import math

import streamlit as st

from backend.devices import (
    DEVICES,
    SHAPES,
    DeviceProfile,
    ModelShape,
    SimulatorSettings,
    find_shape,
    footprint,
)
from backend.errors import UserError
from backend.figures.headline import PAPER_DEVICE, PAPER_DRAM_GB, PAPER_SHAPE, paper_dram_gb
from backend.figures.memory_scene import Asked
from backend.figures.memory_sources import CACHE_AWARE, PLAIN
from backend.figures.memory_subjects import GB
from backend.residency import Eviction
from pages._shared.address import Address

POLICIES = {"DIP": PLAIN, "DIP-CA": CACHE_AWARE}
SPLITS = {"Uniform": "uniform", "Better": "optimised"}
IO = {"In turn": False, "Overlapped": True}
_RULES: dict[str, Eviction] = {"LRU": "lru", "LFU": "lfu", "Belady (bound)": "belady"}
_TUCKED = {"own_flash": "false", "sequence": "2048", "bundled": "false"}
"""Settings in the expander, with their defaults."""
_OPENED = "flash_and_sequence_opened"
_LENGTHS = ("512", "1024", "2048", "4096", "8192", "32768")


def preset_button(density: float | None) -> None:
    """Show the button that sets the paper's headline experiment.

    Args:
        density: Density of the fastest recorded point within the budget, None if it is not known.
    """

    def set_controls() -> None:
        st.session_state.update(
            {
                "device": DEVICES[PAPER_DEVICE].title, "shape": PAPER_SHAPE, "policy": "DIP",
                "eviction": "LRU", "split": "Uniform", "io": "In turn", "start": "Cold", "paper": True,
                "own_flash": False, "sequence": "2048", "bundled": False,
                _dram_key(PAPER_SHAPE): PAPER_DRAM_GB,
            }
        )  # fmt: skip
        if density is not None:
            st.session_state["density"] = round(20 * density) / 20

    st.button(
        "Phi-3-Medium in 4 GB",
        icon=":material/smartphone:",
        type="primary",
        key="preset",
        on_click=set_controls,
        help="The headline experiment of arXiv 2412.01380: sets the controls to the paper's device and mode.",
    )


def controls(address: Address) -> Asked:
    """Show the controls and return what they say; a wrong shape is a sentence, and the page stops."""
    titles = {profile.title: profile for profile in DEVICES.values()}
    device = titles[address.choice("Device", list(titles), "device")]
    shape = _shape()
    settings = SimulatorSettings()
    dram_gb = _dram(address, shape)
    policy = POLICIES[address.segments("Policy", list(POLICIES), "policy", default="DIP")]
    density = address.number("MLP density", 0.1, 1.0, "density", default=0.8, step=0.05)
    gamma = 1.0
    if policy == CACHE_AWARE:
        gamma = address.number(
            "γ", 0.05, 0.95, "gamma", default=0.3, step=0.05,
            help="What the score of a column outside the cache is multiplied by; 1 would be DIP.",
        )  # fmt: skip
    rules = list(_RULES) if policy == PLAIN else ["LRU", "LFU"]
    eviction = _RULES[address.choice("Eviction", rules, "eviction")]
    split = address.segments(
        "DRAM split", list(SPLITS), "split", default="Uniform",
        help="Uniform: the same for every linear, as in the paper. Better: where a byte saves most time.",
    )  # fmt: skip
    start = "Cold"
    if policy == PLAIN:
        start = address.segments(
            "Caches at the start", ["Cold", "Warm"], "start", default="Cold",
            help="Empty at the start of each sequence, as in the paper, or filled by what came before.",
        )  # fmt: skip
    io = address.segments(
        "DRAM and Flash are read", list(IO), "io", default="In turn",
        help="In turn: times add. Overlapped: the longer one counts.",
    )  # fmt: skip
    paper = address.toggle(
        "Paper mode", "paper", default=True,
        help="One Flash bandwidth for all read sizes, no latency, and the whole embedding table read for "
        "each token. Off: small reads are slower, a hook's reads wait for their first byte, one row is read.",
    )  # fmt: skip
    with st.expander("Flash and sequence", expanded=_tucked_in_use(), icon=":material/tune:"):
        flash = _flash(address, device)
        length = int(address.choice("Sequence, tokens", _LENGTHS, "sequence", default=_TUCKED["sequence"]))
        bundled = address.toggle(
            "Bundle up and gate",
            "bundled",
            help="Their columns lie side by side on Flash: fewer, larger reads.",
        )
    changes = {
        "split": SPLITS[split], "overlap": IO[io], "start": start.lower(), "flash_gb_per_s": flash,
        "sequence_tokens": length, "bundled": bundled,
    }  # fmt: skip
    settings = SimulatorSettings.paper(**changes) if paper else SimulatorSettings.parse(changes, "simulator")
    log = address.toggle("Logarithmic speed axis", "log", default=True)
    return Asked(device, shape, dram_gb, policy, density, gamma, eviction, settings, log)


def _tucked_in_use() -> bool:
    """Tell whether a setting in the expander is not the default, or was in this session.

    A link's settings must be seen; and what opened so must not close under the hand that sets one back.
    """
    values = {
        key: st.session_state.get(key, st.query_params.get(key, usual)) for key, usual in _TUCKED.items()
    }
    in_use = any(str(value).lower() != _TUCKED[key] for key, value in values.items())
    st.session_state[_OPENED] = in_use or bool(st.session_state.get(_OPENED))
    return bool(st.session_state[_OPENED])


def _shape() -> ModelShape:
    named = st.selectbox(
        "Model shape", list(SHAPES), key="shape", bind="query-params", accept_new_options=True,
        help="A known shape, or the folder of a model (its config.json) on this machine.",
    )  # fmt: skip
    try:
        found = find_shape(named or PAPER_SHAPE)
    except UserError as error:
        st.error(str(error), icon=":material/error:")
        st.stop()
    return found


def _dram(address: Address, shape: ModelShape) -> float:
    """Show the DRAM slider; its range follows the model, so each shape has one of its own."""
    assumed = SimulatorSettings()
    size = footprint(shape, assumed.precision, assumed.sequence_tokens)
    step = _step(size.total / GB / 150)
    low = step * max(1, round(0.5 * size.static / GB / step))
    high = step * math.ceil(size.total / GB / step)
    default = step * round(paper_dram_gb(shape) / step)
    digits = max(0, -math.floor(math.log10(step)))
    return address.number(
        "DRAM for the model (GB)", round(low, digits), round(high, digits), _dram_key(shape.name),
        default=round(default, digits), step=step, format=f"%.{digits}f",
    )  # fmt: skip


def _dram_key(shape: str) -> str:
    return "dram" if shape == PAPER_SHAPE else f"dram_{shape}"


def _step(size: float) -> float:
    """Return the number 1, 2 or 5 times a power of ten that is nearest below."""
    power = 10.0 ** math.floor(math.log10(size))
    return round(next(m for m in (5, 2, 1) if m * power <= size * (1 + 1e-9)) * power, 6)


def _flash(address: Address, device: DeviceProfile) -> float | None:
    peak = device.flash.peak_gb_per_s
    if not address.toggle("Own Flash bandwidth", "own_flash", help=f"The profile's is {peak:g} GB/s."):
        return None
    return address.number("Flash bandwidth (GB/s)", 0.1, 10.0, "flash", default=1.0, step=0.1)
