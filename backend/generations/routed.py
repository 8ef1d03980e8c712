"""Generations of a mixture of experts: one sequence token by token under a routing policy, or in one pass.

The decode loop is transformers' own with its cache, the routers hooked; all experts are in memory. A prompt
is read under the policy, which leaves it alone if its setting ``prompt`` says so; its caches follow it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backend.generations.experts import ExpertAccount, ExpertCaches, TokenExperts
from backend.generations.readings import Reading
from backend.routing.engine import RoutedEngine, RoutedSequence
from backend.routing.policy import RoutingPolicy

if TYPE_CHECKING:
    from torch import Tensor

    from backend.decoding.decoder import ReadPrompt
    from backend.experiments.laboratory import Subject
    from backend.generations.side import Setting

CHUNK = 64
"""Tokens whose logits are held at once."""


class RoutedModel:
    """A mixture ready to decode: nothing has to be laid out, sides share it as it is."""

    def __init__(self, engine: RoutedEngine) -> None:
        self.engine = engine


class RoutedDecoding:
    """One sequence of a mixture: read a prompt, then feed token after token.

    Args:
        engine: The model, with its own routing between two steps: sequences may take turns.
        policy: The policy.
        calibration: What was measured on calibration text, by layer.
    """

    loop = "transformers"

    def __init__(self, engine: RoutedEngine, policy: RoutingPolicy, calibration: Any = None) -> None:
        self._engine, self._policy, self._calibration = engine, policy, calibration
        self._caches = ExpertCaches(engine, policy)
        self._account = ExpertAccount()
        self._sequence: RoutedSequence | None = None
        self._cache: Any = None
        self._last: TokenExperts | None = None

    def read_prompt(self, ids: Tensor) -> Tensor:
        """Read the prompt as the policy says; return the logits of the token after it. # [T] → [V]"""
        self._sequence = self._engine.sequence(self._policy, prompt=len(ids), calibration=self._calibration)
        logits = self._run(ids)
        self._caches.serve(self._sequence.last)
        return logits

    def go_on(self, read: ReadPrompt) -> Tensor:
        """Read a prompt again that original routing has read: caches and state have to follow it."""
        return self.read_prompt(read.ids)

    def feed(self, token: int) -> Tensor:
        """Feed one token; return the logits of the next. # [V]"""
        import torch

        assert self._sequence is not None
        logits = self._run(torch.tensor([token]))
        (self._last,) = self._caches.serve(self._sequence.last)
        self._account.add(self._last)
        return logits

    def readings(self) -> list[Reading]:
        """Return the columns of the token that was fed last."""
        assert self._last is not None
        return self._caches.readings(self._last)

    def settle(self) -> ExpertAccount:
        """Return what was used so far."""
        return self._account

    def _run(self, ids: Tensor) -> Tensor:
        import torch

        assert self._sequence is not None
        anatomy = self._engine.anatomy
        with torch.inference_mode(), self._sequence.routed():
            output = anatomy.decoder(
                input_ids=ids[None].to(self._engine.model.device), past_key_values=self._cache, use_cache=True
            )
            self._cache = output.past_key_values
            return anatomy.head.logits(output.last_hidden_state[0, -1:])[0]


class ExpertMeter:
    """A token's experts."""

    def start(self, decoding: Any) -> None:
        """Take note of nothing: a token's experts are its own."""

    def read(self, decoding: Any) -> list[Reading]:
        """Return the columns of the token that was fed last."""
        found: list[Reading] = decoding.readings()
        return found


def routed_chunks(
    engine: RoutedEngine,
    setting: Setting,
    policy: RoutingPolicy,
    text: list[int],
    account: ExpertAccount,
    calibration: Any,
) -> Iterator[tuple[Tensor, list[list[Reading]]]]:
    """Run prompt and text in one pass, which chooses what token by token would: caches are a layer's own.

    Yields:
        The logits at the places of some tokens # [T, V], and their columns.
    """
    import torch

    start = len(setting.prompt)
    ids = torch.tensor([setting.prompt + text[:-1]], device=engine.model.device)
    hidden, reading = engine.hidden_states(policy, ids, prompt=start, calibration=calibration)
    caches = ExpertCaches(engine, policy)
    experts = caches.serve(reading.layers)[start:]
    for token in experts:
        account.add(token)
    # The logits of place t come from the token before it, whose experts they show; the prompt gave the first.
    columns = [[], *(caches.readings(token) for token in experts)]
    for first in range(0, len(text), CHUNK):
        last = min(first + CHUNK, len(text))
        with torch.inference_mode():
            rows = engine.head.logits(hidden[0, start - 1 + first : start - 1 + last]).cpu()
        yield rows, columns[first:last]


def holds_experts(model: Any) -> bool:
    """Tell whether a loaded model is a mixture of experts."""
    from backend.models.anatomy import has_experts

    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    return any(has_experts(layer) for layer in getattr(decoder, "layers", None) or ())


def refuse_unfit(subject: Subject, policy: RoutingPolicy) -> None:
    """Check a policy against a mixture.

    Raises:
        UserError: Its settings or its caches do not fit the model.
    """
    subject.routing.fit(policy)
    ExpertCaches(subject.routing, policy)
