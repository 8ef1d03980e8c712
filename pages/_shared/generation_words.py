"""What a strip says of a token, in words and colours."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from backend.figures.drawing.scales import colour_at, ink_on, limits, rgb_text
from backend.figures.drawing.text import short
from backend.figures.generations import Colour, visible
from backend.results.generations import Side, value_of
from pages._shared.token_strip import ShownToken, packed

_SHADES = 256


def shown_strip(tokens: list[dict[str, Any]], side: Side, colours: Sequence[Colour]) -> str:
    """Return what a strip shows of tokens, in every colour, as the browser gets it."""
    looks = [_looks(tokens, colour) for colour in colours]
    shown = [
        ShownToken(visible(token["text"]).replace("\n", "↵\n") or "⋯", about(token, side), tuple(each))
        for token, *each in zip(tokens, *looks, strict=True)
    ]
    return packed(shown, [colour.scale.label for colour in colours])


def _looks(tokens: list[dict[str, Any]], colour: Colour) -> list[str]:
    """Return each token's colours on a scale, "" where it has no value."""
    values = [colour.of(token) for token in tokens]
    low, high = limits(colour.scale, [values])
    return [
        "" if value is None else _look(colour.scale.kind, _step((value - low) / (high - low)))
        for value in values
    ]


def _step(share: float) -> int:
    return round(min(max(share, 0.0), 1.0) * (_SHADES - 1))


@cache
def _look(kind: str, step: int) -> str:
    """Return one of a scale's 256 colours and that of letters on it, as CSS writes them."""
    shade = colour_at(kind, step / (_SHADES - 1))
    return f"background:{rgb_text(shade)};color:{ink_on(shade)}"


def about(token: dict[str, Any], side: Side) -> str:
    """Return what hovering over a token says: its text, scores and own columns, a line each."""
    text = visible(token["text"]).replace("\n", "↵") or "part of a letter"
    lines = [f"“{text}” · token {token['place'] + 1}", f"log p {short(token['logprob'])} nats"]
    if token["kl"] is None:
        lines.append(f"not read by {_reference(side)} yet")
    else:
        delta = value_of(token, "delta_logprob")
        assert delta is not None
        lines += [
            f"{_kl(side)} {short(token['kl'])} nats",
            f"Δlog p {short(delta)} nats",
            f"rank under {_reference(side)} {token['dense_rank']:,}",
        ]
    for column in side.columns:
        value = token["own"].get(column.name)
        if value is not None:
            lines.append(f"{column.label} {short(value)} {column.unit}".rstrip())
    if not token["own"]:
        lines.append("given by the prompt")
    return "\n".join(lines)


def _reference(side: Side) -> str:
    return "original routing" if side.execution == "routed" else "dense"


def _kl(side: Side) -> str:
    return "KL(original‖policy)" if side.execution == "routed" else "KL(dense‖sparse)"
