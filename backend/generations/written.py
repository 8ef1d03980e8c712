"""One token as a side wrote it, and the events that carry tokens to the run folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from backend.experiments.events import EventLog
from backend.generations.readings import Reading
from backend.generations.scoring import Score, Top

Form = Literal["free", "forced"]
FLUSH_SECONDS = 0.1
"""Tokens that come within this time share an event, for each has to reach the disk before the next."""


@dataclass(frozen=True)
class Written:
    """One token of a side.

    Attributes:
        id: The token.
        text: Its piece of the text.
        logprob: ``log p_side(token)``, nats.
        top: The side's most likely tokens there: text and log-probability.
        seconds: What the side's own steps have taken up to it; None where it was fed.
        readings: The side's columns; none where the prompt gave the token.
    """

    id: int
    text: str
    logprob: float
    top: Top
    seconds: float | None = None
    readings: list[Reading] = field(default_factory=list)


class Stream:
    """Writes one side's tokens and scores in one form, in order.

    Args:
        log: The run's events.
        item: The prompt's number.
        side: The side's number.
        form: Free or forced.
    """

    def __init__(self, log: EventLog, item: int, side: int, form: Form) -> None:
        self._log = log
        self._where: dict[str, Any] = {"item": item, "side": side, "form": form}
        self._waiting: list[Written] = []
        self._told: set[str] = set()
        self._flushed = 0.0
        self.places = 0
        self.scored = 0

    def token(self, token: Written) -> None:
        """Write a token, with those that come soon after."""
        self._waiting.append(token)
        if time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        tokens, self._waiting = self._waiting, []
        new = {r.column.name: r.column for t in tokens for r in t.readings if r.column.name not in self._told}
        self._told |= set(new)
        said = [_token_json(token) for token in tokens]
        columns = {"columns": [column.as_json() for column in new.values()]} if new else {}
        self._log.append("generation_tokens", **self._where, first=self.places, tokens=said, **columns)
        self.places += len(tokens)
        self._flushed = time.monotonic()

    def scores(self, scores: list[Score]) -> None:
        """Write the dense model's view of the next tokens."""
        if scores:
            self.flush()
            said = [_score_json(score) for score in scores]
            self._log.append("generation_scores", **self._where, first=self.scored, tokens=said)
            self.scored += len(scores)

    def end(self, **told: Any) -> None:
        """Write how the side ended."""
        self.flush()
        self._log.append("generation_side_ended", **self._where, tokens=self.places, **told)


def _token_json(token: Written) -> dict[str, Any]:
    return {
        "id": token.id,
        "text": token.text,
        "logprob": _short(token.logprob),
        "top": token.top,
        "seconds": None if token.seconds is None else _short(token.seconds),
        "values": {r.column.name: _short(r.value) for r in token.readings},
        "layers": {key: values for r in token.readings for key, values in r.by_layer(4).items()},
    }


def _score_json(score: Score) -> dict[str, Any]:
    return {
        "dense_logprob": _short(score.dense_logprob),
        "kl": _short(score.kl),
        "dense_rank": score.dense_rank,
        "top": score.top,
    }


def _short(value: float) -> float:
    """Return a value to six digits (a layer's has four): nothing that is measured here has more."""
    return float(f"{value:.6g}")
