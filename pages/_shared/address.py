"""Controls whose values stand in the page's address, so that a link shows what its sender saw.

Streamlit drops what it cannot use from an address in silence; here the page says so, in a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages._shared.text import quoted

_OFFERED = "address_offered"
"""Key of what the address asked for in this session and there was: what is no longer there was left by a
choice made on the page, and nobody asked for it."""


def place() -> DeltaGenerator:
    """Return a place on the page for what may be there or not.

    Without one, what comes after moves, and a control that moves loses its binding to the address: the
    browser takes back the old place's after it has made the new one's.
    """
    return st.container()


class Address:
    """Makes controls bound to the page's address. Made at the top of a page: it speaks there."""

    def __init__(self) -> None:
        self._notices = st.container()

    def choice(self, label: str, options: Sequence[str], key: str, *, default: str = "", **more: Any) -> str:
        """Return one of ``options``; the address and the control use the same words."""
        self._check(key, label, options)
        index = options.index(default) if default in options else 0
        self._keep(key, options[index], options)
        chosen = st.selectbox(label, options, index=index, key=key, bind="query-params", **more)
        return str(chosen if chosen is not None else options[index])

    def named(self, label: str, options: Sequence[str], key: str) -> str:
        """Return the one of ``options`` that the address names, or the first, for a control of our own."""
        self._check(key, label, options)
        given = str(st.query_params.get(key, options[0]))
        found = next((option for option in options if option.lower() == given.lower()), None)
        if found is None:
            st.query_params.pop(key, None)  # a link must show what stands here
        return found or options[0]

    def segments(self, label: str, options: Sequence[str], key: str, *, default: str, **more: Any) -> str:
        """Return one of a few ``options``, shown side by side.

        As radio buttons: the chosen part of a segmented control is too faint on a dark page.
        """
        self._check(key, label, options)
        index = options.index(default)
        self._keep(key, default, options)
        chosen = st.radio(label, options, index=index, key=key, bind="query-params", horizontal=True, **more)
        return str(chosen or default)

    def steps(self, label: str, options: Sequence[str], key: str, **more: Any) -> str:
        """Return one of ``options`` that have an order, dragged on a slider; a single one is only told."""
        if len(options) < 2:
            st.caption(f"{label}: {options[0]}")
            return options[0]
        self._check(key, label, options)
        self._keep(key, options[0], options)
        chosen = st.select_slider(label, options, key=key, bind="query-params", **more)
        return str(chosen)

    def several(
        self, label: str, options: Sequence[str], key: str, *, default: Sequence[str] = (), **more: Any
    ) -> list[str]:
        """Return any number of ``options``."""
        self._check(key, label, options)
        self._keep(key, list(default), options)
        chosen = st.multiselect(label, options, default=list(default), key=key, bind="query-params", **more)
        return [str(option) for option in chosen]

    def toggle(self, label: str, key: str, *, default: bool = False, **more: Any) -> bool:
        """Return a switch."""
        self._check(key, label, ("true", "false"))
        self._keep(key, default)
        return bool(st.toggle(label, value=default, key=key, bind="query-params", **more))

    def number(
        self, label: str, low: float, high: float, key: str, *, default: float, step: float, **more: Any
    ) -> float:
        """Return a number from a slider."""
        self.check_number(key, label, low, high)
        self._keep(key, default)
        chosen = st.slider(label, low, high, default, step, key=key, bind="query-params", **more)
        return float(chosen)

    def check_number(self, key: str, label: str, low: float, high: float) -> None:
        """Say so if the address holds something else than a number from ``low`` to ``high``."""
        for given in st.query_params.get_all(key):
            try:
                good = low <= float(given) <= high
            except ValueError:
                good = False
            if not good:
                self.say(
                    f"The address asks for {label} {quoted(given)}; "
                    f"it must be a number from {low:g} to {high:g}."
                )

    def say(self, sentence: str) -> None:
        """Show a sentence about the address at the top of the page."""
        self._notices.warning(f"{sentence} The default is shown instead.", icon=":material/link_off:")

    def _keep(self, key: str, default: Any, options: Sequence[str] | None = None) -> None:
        """Have the address say a control's value where the browser has not.

        It writes what is no default when a control is moved. It cannot know of a default that changes with
        the data under a value that stays, and it forgets a control that comes to stand elsewhere on its page.
        """
        value = st.session_state.get(key)
        chosen = value if isinstance(value, list) else [value]
        if value is None or (options is not None and not set(chosen) <= set(options)):
            return
        said = st.query_params.get_all(key)
        if not _says(said, value) and (said or value != default):
            st.session_state[key] = value

    def _check(self, key: str, label: str, options: Sequence[str]) -> None:
        offered: set[tuple[str, str]] = st.session_state.setdefault(_OFFERED, set())
        for given in st.query_params.get_all(key):
            if given.lower() in {option.lower() for option in options}:
                offered.add((key, given))
            elif (key, given) not in offered:
                hint = _nearest(given, options)
                self.say(f"The address asks for {label} {quoted(given)}, which there is not; {hint}")


def _says(said: Sequence[str], value: Any) -> bool:
    """Tell whether an address's words for a control say its value."""
    if isinstance(value, bool):
        return list(said) == [str(value).lower()]
    if isinstance(value, int | float):
        try:
            return [float(each) for each in said] == [value]
        except ValueError:
            return False
    return list(said) == (value if isinstance(value, list) else [str(value)])


def _nearest(given: str, options: Sequence[str]) -> str:
    """Return a question for the option that was probably meant, or all of them; case does not count."""
    by_lower = {option.lower(): option for option in options}
    near = get_close_matches(given.lower(), list(by_lower), n=1, cutoff=0.6)
    if near:
        return f"did you mean '{by_lower[near[0]]}'?"
    shown = ", ".join(options[:8])
    return f"there is {shown}{' and more' if len(options) > 8 else ''}."
