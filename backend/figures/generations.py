"""Token strips of generated texts: which values can colour them, and the figure of one side."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from backend.figures.curves import point_label
from backend.figures.drawing.text import counted
from backend.figures.heat_map import ColourScale
from backend.figures.spec import Axis, FigureSpec, Provenance
from backend.figures.token_strip import TokenStrip
from backend.generations.request import DENSE
from backend.results.generations import Form, Generation, Side, value_of
from backend.results.rows import to_json

FORMS: dict[Form, str] = {"free": "Free-running", "forced": "Forced on the reference's text"}
"""Forms for people; the same words for a mixture, whose reference is its original routing."""
NOTES: dict[Form, str] = {
    "free": "Free-running: each side goes on from its own text; KL, Δlog p and rank are by the dense model "
    "at that side's own context.",
    "forced": "Forced: the dense model's text, each token predicted by the policy at the same context.",
}


_ENDED = {
    "end token": "ended by itself", "length": "at its full length", "stopped": "stopped",
    "forced": "scored",
}  # fmt: skip


@dataclass(frozen=True)
class Colour:
    """What tokens can be coloured by.

    Attributes:
        name: Of the score or column.
        scale: Its colour scale.
        log: The logarithm to base 10 is shown.
    """

    name: str
    scale: ColourScale
    log: bool = False

    def of(self, token: dict[str, Any]) -> float | None:
        """Return what a token is coloured by."""
        value = value_of(token, self.name)
        return math.log10(value) if self.log and value is not None else value


SCORES = (
    Colour("kl", ColourScale(label="KL(dense‖sparse)", unit="nats", better="lower", range=(0, 3))),
    Colour(
        "delta_logprob",
        ColourScale(label="Δlog p (sparse − dense)", unit="nats", kind="diverging", range=(-3, 3)),
    ),
    Colour(
        "dense_rank",
        ColourScale(label="Rank under dense, log10", better="lower", range=(0, 4)),
        log=True,
    ),
)
"""What every side has; a mixture's have the same beside original routing. The ranges are fixed, so that two
texts can be compared; what is beyond has the last colour."""


ROUTED_SCORES = tuple(
    replace(each, scale=each.scale.model_copy(update={"label": label}))
    for each, label in zip(
        SCORES,
        ("KL(original‖policy)", "Δlog p (policy − original)", "Rank under original routing, log10"),
        strict=True,
    )
)
ROUTED_NOTES: dict[Form, str] = {
    "free": "Free-running: each side goes on from its own text; KL, Δlog p and rank are by the original "
    "routing at that side's own context. Misses are simulated: all experts are in memory here.",
    "forced": "Forced: original routing's text, each token predicted by the policy at the same context. "
    "Misses are simulated: all experts are in memory here.",
}


def is_routed(shown: Generation) -> bool:
    """Tell whether the sides are routing policies of a mixture of experts."""
    return shown.sides[DENSE].policy == "original"


def note_of(shown: Generation, form: Form) -> str:
    """Return what a form means."""
    return (ROUTED_NOTES if is_routed(shown) else NOTES)[form]


def colours_of(shown: Generation) -> list[Colour]:
    """Return what a generation's tokens can be coloured by: scores, then what its sides brought along."""
    scores = ROUTED_SCORES if is_routed(shown) else SCORES
    found = {colour.scale.label: colour for colour in scores}
    for side in shown.sides:
        for column in side.columns:
            scale = ColourScale(
                label=column.label, unit=column.unit, better=column.better,
                range=column.range or _fitting(shown, column.name),
            )  # fmt: skip
            found.setdefault(column.label, Colour(column.name, scale))
    return list(found.values())


def side_label(side: Side) -> str:
    """Return a side's name: "Dense", "DIP · density 0.5"."""
    return "Dense" if side.policy == "dense" else point_label(side.policy, to_json(side.settings))


def strip_spec(shown: Generation, side: Side, form: Form, colour: Colour) -> FigureSpec:
    """Return the token strip of one side.

    Args:
        shown: The generation.
        side: Its side.
        form: Its own text, or the dense model's.
        colour: What colours the tokens.
    """
    tokens = shown_tokens(shown, side, form)
    strip = TokenStrip(
        tokens=tuple(visible(token["text"]) for token in tokens),
        values=tuple(colour.of(token) for token in tokens),
        scale=colour.scale,
    )
    return FigureSpec(
        title=f"{side_label(side)}: {colour.scale.label}",
        x=Axis(label=""),
        y=Axis(label=""),
        strip=strip,
        note=note_of(shown, form) if side.number != DENSE else f"{side_label(side)}: the model's own text.",
        provenance=Provenance(
            runs=(shown.run_id,),
            filters={"model": shown.model, "prompt": visible(shown.prompt), "form": form},
            how=("oracle",) if side.how == "oracle" else ("measured",),
            methods=(side.policy,),
        ),
    )


def shown_tokens(shown: Generation, side: Side, form: Form) -> list[dict[str, Any]]:
    """Return a side's tokens in a form; the dense model has one text for both."""
    return side.tokens.get("free" if side.number == DENSE else form, [])


def summary(shown: Generation, side: Side, form: Form) -> str:
    """Return a side's speed, density, mean KL and divergence, as far as they are known."""
    tokens = shown_tokens(shown, side, form)
    used: Form = "free" if side.number == DENSE else form
    end = side.ends.get(used)
    parts = [counted(len(tokens), "token")]
    if end is not None:
        parts[0] += f", {_ENDED[end.ended]}"
        if end.tokens_per_s is not None:
            parts.append(f"{end.tokens_per_s:.1f} tokens/s measured ({side.execution})")
    elif (rate := side.rate(used)) is not None:
        parts.append(f"{rate:.1f} tokens/s so far ({side.execution})")
    density = side.mean("mlp_density", used) if end is None else end.mlp_density
    if density is not None:
        parts.append(f"MLP density {density:.3f}")
    if end is not None and "miss_rate" in end.counted:
        parts.append(f"miss rate {end.counted['miss_rate'][0]:.3f} simulated")
        parts.append(f"{end.counted['experts_per_token'][0]:.3g} experts a token and layer")
    if end is not None and "hit_rate" in end.counted:
        parts.append(f"hit rate {end.counted['hit_rate'][0]:.3f}")
    if side.number != DENSE:
        if (kl := side.mean("kl", used)) is not None:
            parts.append(f"mean KL {kl:.3f} nats")
        if form == "free" and (place := shown.divergence(side)) is not None:
            parts.append(f"differs from token {place + 1} on")
    return " · ".join(parts)


def visible(text: str) -> str:
    """Return text with signs for characters that would steer a screen: control characters, directions."""
    return "".join(_sign(letter) for letter in text)


def _sign(letter: str) -> str:
    code = ord(letter)
    if letter in "\n\t":
        return letter
    if code < 32 or code == 127:
        return chr(0x2400 + code) if code < 32 else "\u2421"
    if (
        0x80 <= code < 0xA0
        or 0x200B <= code <= 0x200F
        or 0x2028 <= code <= 0x202E
        or 0x2060 <= code <= 0x2069
    ):
        return f"⟨{code:04X}⟩"
    return letter


def _fitting(shown: Generation, name: str) -> tuple[float, float] | None:
    """Return one scale for all sides that have a column."""
    values = [
        value
        for side in shown.sides
        for tokens in side.tokens.values()
        for token in tokens
        if (value := value_of(token, name)) is not None
    ]
    if not values:
        return None
    low, high = min(values), max(values)
    return (low, high) if low < high else (low - 0.5, high + 0.5)
