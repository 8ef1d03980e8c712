"""A policy scored on the dense model's text: every token at the same context, so that all can be compared.

One masked pass over the whole text gives everything at once. Only a policy whose state counts something for
each token (a cache) is fed token by token, so that its columns are known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from backend.decoding.decoder import Decoding
from backend.generations.experts import ExpertAccount
from backend.generations.meters import counts, density_reading, meters_for, read_all
from backend.generations.pieces import Pieces
from backend.generations.readings import Reading
from backend.generations.routed import routed_chunks
from backend.generations.scoring import compare, top_tokens
from backend.generations.side import DenseReader, Setting, Side, execution_of
from backend.generations.written import Stream, Written
from backend.routing.engine import RoutedEngine
from backend.routing.policy import RoutingPolicy
from backend.sparsity.accounting import Reading as Account
from backend.sparsity.accounting import mlp_share
from backend.sparsity.engine import MaskedEngine
from backend.sparsity.policy import Policy, Site

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 64
"""Tokens scored at once: logits of 64 tokens of a 49k vocabulary take 12 MB."""
Chunk = tuple["Tensor", list[list[Reading]]]
Ready = Callable[[Any], AbstractContextManager[Any]]


def score_forced(
    engine: MaskedEngine | RoutedEngine,
    ready: Ready,
    setting: Setting,
    policy: Side,
    text: list[int],
    stream: Stream,
    stop: Callable[[], None],
    calibration: Any = None,
) -> None:
    """Score a policy on a text that the dense model wrote.

    Args:
        engine: The model.
        ready: Lays memory out for a policy that is fed token by token.
        setting: What the sides share.
        policy: The policy.
        text: The dense text's tokens.
        stream: Where tokens and scores go.
        stop: Raises ``Cancelled`` when that was asked for.
        calibration: What the policy fitted on its calibration text.
    """
    begun = time.perf_counter()
    reader, pieces = DenseReader(engine, setting.read), Pieces(setting.tokenizer, setting.prompt)
    account, chunks = _chunks(engine, ready, setting, policy, text, calibration)
    done = 0
    for logits, readings in chunks:
        stop()
        tokens = text[done : done + len(logits)]
        done += len(tokens)
        log_p = logits.double().log_softmax(-1)
        for place, token in enumerate(tokens):
            top = top_tokens(log_p[place], setting.tokenizer)
            logprob = float(log_p[place, token])
            stream.token(Written(token, pieces.add(token), logprob, top, None, readings[place]))
        stream.scores(compare(reader.logits(tokens, done == len(text)), logits, tokens, setting.tokenizer))
    has = account.tokens > 0
    stream.end(
        ended="forced",
        seconds=time.perf_counter() - begun,
        tokens_per_s=None,
        first_token_s=None,
        mlp_density=account.mlp_density if has else None,
        model_density=account.model_density if has else None,
        counted=account.counted(setting.value_bytes) if has else {},
        loop=None,
    )


def _chunks(
    engine: MaskedEngine | RoutedEngine,
    ready: Ready,
    setting: Setting,
    policy: Side,
    text: list[int],
    calibration: Any,
) -> tuple[Account | ExpertAccount, Iterator[Chunk]]:
    """Return the account, which fills as the chunks are taken, and the chunks."""
    if isinstance(policy, RoutingPolicy):
        assert isinstance(engine, RoutedEngine)
        used = ExpertAccount()
        return used, routed_chunks(engine, setting, policy, text, used, calibration)
    assert isinstance(engine, MaskedEngine)
    account = Account(engine.anatomy, policy)
    if counts(policy):
        return account, _by_token(ready, setting, policy, text, account, calibration)
    return account, _in_one_pass(engine, setting, policy, text, account, calibration)


def _by_token(
    ready: Ready, setting: Setting, policy: Policy, text: list[int], account: Account, calibration: Any
) -> Iterator[Chunk]:
    """Feed the text token by token, as the policy would decode it. Yields logits # [T, V] and columns."""
    with ready(policy) as model:
        decoding = Decoding(
            model,
            policy,
            setting.room,
            execution=execution_of(policy),
            prefill=setting.prefill,
            calibration=calibration,
        )
        yield from _fed(decoding, setting, policy, text)
        if len(text) > 1:
            account.merge(decoding.settle())


def _fed(decoding: Decoding, setting: Setting, policy: Policy, text: list[int]) -> Iterator[Chunk]:
    import torch

    meters = meters_for(policy, setting.value_bytes)
    if setting.prefill == "dense":
        rows = [decoding.go_on(setting.read).cpu()]
    else:
        rows = [decoding.read_prompt(torch.tensor(setting.prompt)).cpu()]
    for meter in meters:
        meter.start(decoding)
    readings: list[list[Reading]] = [[]]
    for token in text[:-1]:
        rows.append(decoding.feed(token).cpu())
        readings.append(read_all(meters, decoding))
        if len(rows) == CHUNK:
            yield torch.stack(rows), readings
            rows, readings = [], []
    if rows:
        yield torch.stack(rows), readings


def _in_one_pass(
    engine: MaskedEngine,
    setting: Setting,
    policy: Policy,
    text: list[int],
    account: Account,
    calibration: Any,
) -> Iterator[Chunk]:
    """Run prompt and text at once, masked. Yields logits # [T, V] and columns."""
    import torch

    start = len(setting.prompt)
    dense = start if setting.prefill == "dense" else 0
    ids = torch.tensor([setting.prompt + text[:-1]], device=engine.model.device)
    shares = _Shares(engine, policy, ids.shape[1] - dense)
    hidden: Any = None  # a single token, which the prompt gave, needs none
    if ids.shape[1] > dense:
        states, reading = engine.hidden_states(
            policy, ids, calibration=calibration, watch=shares, prompt=dense
        )
        account.merge(reading)
        hidden = states[0]
    for first in range(0, len(text), CHUNK):
        places = range(first, min(first + CHUNK, len(text)))
        rows = []
        inner = places
        if first == 0 and dense:
            rows.append(setting.read.logits[None].cpu())
            inner = range(1, places.stop)
        if inner:
            with torch.inference_mode():
                states = hidden[start - 1 + inner.start : start - 1 + inner.stop]
                rows.append(engine.anatomy.head.logits(states).cpu())
        # The logits of place t come from the token before it, which is the one that was read.
        columns = [shares.reading(start - 1 + place - dense) if place else [] for place in places]
        yield torch.cat(rows), columns


class _Shares:
    """Watches the masks of a pass and keeps what each token read of each layer.

    Args:
        engine: The model.
        policy: The policy.
        tokens: Tokens of the pass.
    """

    def __init__(self, engine: MaskedEngine, policy: Policy, tokens: int) -> None:
        self._anatomy, self._policy, self._tokens = engine.anatomy, policy, tokens
        self._kept: dict[tuple[int, Site], list[float]] = {}

    def __call__(self, layer: int, site: Site, mask: Tensor, _values: Any) -> None:
        """Take one mask. # [1, T, N]"""
        self._kept[layer, site] = mask[0].float().mean(-1).tolist()

    def reading(self, place: int) -> list[Reading]:
        """Return the columns of one token of the pass."""
        layers = [
            mlp_share(self._policy, self._share(layer, "mlp_in", place), self._share(layer, "mlp_mid", place))
            for layer in self._anatomy.mlps
        ]
        return [density_reading(self._anatomy, layers)]

    def _share(self, layer: int, site: Site, place: int) -> float:
        kept = self._kept.get((layer, site))
        return 1.0 if kept is None else kept[place]
