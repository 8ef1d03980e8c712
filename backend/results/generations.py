"""What pages and the CLI ask of generated texts."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from backend.generations.columns import TokenColumn
from backend.generations.request import DENSE
from backend.results.store import Store

Form = Literal["free", "forced"]
OWN_ENDS = ("end token", "length")
"""How a text ends that nobody stopped."""
_TOKEN = (
    "place", "token_id", "text", "logprob", "seconds", "top", "own", "layers", "dense_logprob", "kl",
    "dense_rank", "dense_top",
)  # fmt: skip


@dataclass(frozen=True)
class Ending:
    """How a side's text ended, or its scoring.

    Attributes:
        ended: "end token", "length", "stopped" or "forced".
        tokens_per_s: Tokens decoded a second of the side's own steps; None if there was no step.
        first_token_s: Seconds from taking up the prompt to the first token.
        mlp_density: Share of MLP weights read, over all tokens after the prompt.
        model_density: Share of all weights.
        loop: Which decode loop ran: "lean" or "transformers".
        counted: What the policy's state counted: metric → (value, unit).
    """

    ended: str
    seconds: float | None
    tokens_per_s: float | None
    first_token_s: float | None
    mlp_density: float | None
    model_density: float | None
    loop: str | None
    counted: dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One side of a prompt.

    Attributes:
        number: 0 for the dense model.
        policy: The method's name.
        settings: Its settings.
        how: "measured" or "oracle".
        execution: "gathered" or "masked".
        no_text: Why it has no text of its own, "" if it has.
        columns: What its tokens have beside KL, Δlog p and rank.
        tokens: Form → one row a token: place, token_id, text, logprob, seconds (of the side's own steps up
            to it), top, own, layers, dense_logprob, kl, dense_rank, dense_top; the last four are None where
            the dense model has not read yet.
        ends: Form → how it ended; absent while it runs.
    """

    number: int
    policy: str
    settings: dict[str, Any]
    how: str
    execution: str
    no_text: str
    columns: tuple[TokenColumn, ...]
    tokens: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ends: dict[str, Ending] = field(default_factory=dict)

    def text(self, form: Form) -> str:
        """Return the text."""
        return "".join(token["text"] for token in self.tokens.get(form, ()))

    def rate(self, form: Form) -> float | None:
        """Return the tokens a second so far, by the side's own steps; the prompt gave the first token."""
        tokens = self.tokens.get(form) or [{}]
        seconds = tokens[-1].get("seconds")
        return (len(tokens) - 1) / seconds if seconds else None

    def mean(self, name: str, form: Form) -> float | None:
        """Return the mean of a score or of an own column over the decoded tokens that have it.

        The first token comes from the prompt and is left out: read dense, its KL is 0 by construction.
        """
        values = [value_of(token, name) for token in self.tokens.get(form, ()) if token["place"] > 0]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Generation:
    """One prompt and its sides.

    Attributes:
        run_id: The run.
        item: The prompt's number in it.
        model: The model's name.
        model_sha256: Its weights.
        prompt: What was asked.
        read_as: The prompt as the model read it.
        prompt_tokens: Its length.
        sides: Dense first.
    """

    run_id: str
    item: int
    model: str
    model_sha256: str
    prompt: str
    read_as: str
    prompt_tokens: int
    sides: tuple[Side, ...]

    def divergence(self, side: Side) -> int | None:
        """Return the first place at which a side's own text differs from dense's, None if there is none.

        A text that came to its own end differs from a longer one there; one that was stopped or still grows
        does not.
        """
        dense, own = (each.tokens.get("free", []) for each in (self.sides[DENSE], side))
        pairs = zip(dense, own, strict=False)
        differing = next((n for n, (a, b) in enumerate(pairs) if a["token_id"] != b["token_id"]), None)
        if differing is not None or len(dense) == len(own):
            return differing
        shorter = self.sides[DENSE] if len(dense) < len(own) else side
        end = shorter.ends.get("free")
        return min(len(dense), len(own)) if end is not None and end.ended in OWN_ENDS else None


def value_of(token: dict[str, Any], name: str) -> float | None:
    """Return a token's value of a score ("kl", "delta_logprob", "dense_rank") or of an own column."""
    if name == "delta_logprob":
        known = token["dense_logprob"] is not None and token["logprob"] is not None
        return token["logprob"] - token["dense_logprob"] if known else None
    if name in ("kl", "dense_rank", "logprob", "dense_logprob"):
        value: float | None = token[name]
        return value
    found: float | None = token["own"].get(name)
    return found


def generation_runs(store: Store) -> pd.DataFrame:
    """Return the runs that write texts, the newest first: run_id, kind, status, created_at, source, spec."""
    return store.frame(
        """
        SELECT run_id, kind, status, created_at, source, spec FROM runs
        WHERE kind IN ('generation', 'prompts') ORDER BY created_at DESC NULLS LAST, run_id DESC
        """
    )


def prompts_in(store: Store, run_id: str) -> list[str]:
    """Return the prompts of a run that were taken up so far, in order."""
    rows = store.rows("SELECT prompt FROM generations WHERE run_id = $run ORDER BY item", {"run": run_id})
    return [str(prompt) for (prompt,) in rows]


def generation(store: Store, run_id: str, item: int = 0) -> Generation | None:
    """Return a prompt of a run with all that was written for it, None if it was not taken up yet."""
    where = {"run": run_id, "item": item}
    head = store.rows(
        "SELECT model, model_sha256, prompt, read_as, prompt_tokens FROM generations "
        "WHERE run_id = $run AND item = $item", where,
    )  # fmt: skip
    if not head:
        return None
    sides = store.rows(
        "SELECT side, policy, settings, how, execution, no_text FROM generation_sides "
        "WHERE run_id = $run AND item = $item ORDER BY side", where,
    )  # fmt: skip
    columns, tokens, ends = _columns(store, where), _tokens(store, where), _ends(store, where)
    made = tuple(
        Side(
            number, policy, json.loads(settings), how, execution, no_text, tuple(columns.get(number, ())),
            tokens.get(number, {}), ends.get(number, {}),
        )
        for number, policy, settings, how, execution, no_text in sides
    )  # fmt: skip
    model, model_sha256, prompt, read_as, prompt_tokens = head[0]
    return Generation(run_id, item, model, model_sha256, prompt, read_as, prompt_tokens, made)


def _columns(store: Store, where: dict[str, Any]) -> dict[int, list[TokenColumn]]:
    rows = store.rows(
        "SELECT DISTINCT side, name, label, unit, better, low, high FROM generation_columns "
        "WHERE run_id = $run AND item = $item ORDER BY side, name != 'mlp_density', name", where,
    )  # fmt: skip
    found: dict[int, list[TokenColumn]] = {}
    for side, name, label, unit, better, low, high in rows:
        ends = None if low is None else (low, high)
        found.setdefault(side, []).append(TokenColumn(name, label, unit, better, ends))
    return found


def _tokens(store: Store, where: dict[str, Any]) -> dict[int, dict[str, list[dict[str, Any]]]]:
    rows = store.rows(
        """
        SELECT t.side, t.form, t.place, t.token_id, t.token_text, t.logprob, t.seconds, t.top, t.own,
               t.layers, s.dense_logprob, s.kl, s.dense_rank, s.top
        FROM generation_tokens t LEFT JOIN generation_scores s USING (run_id, item, side, form, place)
        WHERE t.run_id = $run AND t.item = $item ORDER BY t.side, t.form, t.place
        """,
        where,
    )
    found: dict[int, dict[str, list[dict[str, Any]]]] = {}
    for side, form, *values in rows:
        token = dict(zip(_TOKEN, values, strict=True))
        for name in ("top", "own", "layers", "dense_top"):
            token[name] = None if token[name] is None else json.loads(token[name])
        found.setdefault(side, {}).setdefault(form, []).append(token)
    return found


def _ends(store: Store, where: dict[str, Any]) -> dict[int, dict[str, Ending]]:
    rows = store.rows(
        "SELECT side, form, ended, seconds, tokens_per_s, first_token_s, mlp_density, model_density, loop, "
        "counted FROM generation_ends WHERE run_id = $run AND item = $item", where,
    )  # fmt: skip
    found: dict[int, dict[str, Ending]] = {}
    for side, form, ended, seconds, rate, first, mlp, model, loop, counted in rows:
        said = Ending(ended, seconds, rate, first, mlp, model, loop, json.loads(counted))
        found.setdefault(side, {})[form] = said
    return found


def hurt(store: Store, run_id: str) -> pd.DataFrame:
    """Return how much each policy hurts each prompt of a run, one row a prompt and policy.

    Columns: item, prompt, side, policy, settings, kl (mean over the decoded tokens of the dense model's text;
    of the side's own where it was not scored on dense's; None where the prompt's token is all there is), form
    (which of the two), divergence (first place that differs as in :meth:`Generation.divergence`, None if
    there is none), tokens (of the dense text).
    """
    frame = store.frame(
        """
        WITH scored AS (
            SELECT item, side, form, avg(kl) FILTER (WHERE place > 0) AS kl FROM generation_scores
            WHERE run_id = $run AND side > 0 GROUP BY ALL),
        own AS (
            SELECT item, side, place, token_id FROM generation_tokens WHERE run_id = $run AND form = 'free'),
        lengths AS (
            SELECT item, side, count(*) AS tokens, any_value(e.ended) IN $ends AS at_its_end
            FROM own LEFT JOIN (
                SELECT item, side, ended FROM generation_ends WHERE run_id = $run AND form = 'free') e
            USING (item, side) GROUP BY ALL),
        differing AS (
            SELECT o.item, o.side, min(o.place) AS place
            FROM own o JOIN own d ON d.item = o.item AND d.side = 0 AND d.place = o.place
            WHERE o.side > 0 AND o.token_id != d.token_id GROUP BY ALL)
        SELECT s.item, g.prompt, s.side, s.policy, s.settings,
               coalesce(forced.kl, free.kl) AS kl,
               CASE WHEN forced.item IS NULL THEN 'free' ELSE 'forced' END AS form,
               coalesce(differing.place,
                        CASE WHEN mine.tokens < dense.tokens AND mine.at_its_end THEN mine.tokens
                             WHEN dense.tokens < mine.tokens AND dense.at_its_end THEN dense.tokens END)
                   AS divergence,
               dense.tokens
        FROM generation_sides s
        JOIN generations g ON g.run_id = s.run_id AND g.item = s.item
        LEFT JOIN scored forced ON forced.item = s.item AND forced.side = s.side AND forced.form = 'forced'
        LEFT JOIN scored free ON free.item = s.item AND free.side = s.side AND free.form = 'free'
        LEFT JOIN differing ON differing.item = s.item AND differing.side = s.side
        LEFT JOIN lengths mine ON mine.item = s.item AND mine.side = s.side
        LEFT JOIN lengths dense ON dense.item = s.item AND dense.side = 0
        WHERE s.run_id = $run AND s.side > 0 AND coalesce(forced.item, free.item) IS NOT NULL
        ORDER BY s.item, s.side
        """,
        {"run": run_id, "ends": list(OWN_ENDS)},
    )
    return frame.astype({"divergence": "Int64"})
