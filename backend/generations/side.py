"""One side's own text: a token at a time, measured as it is written, scored by dense every few tokens."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from backend.decoding.decoder import Decoding, DecodingModel, Execution, ReadPrompt
from backend.decoding.refusal import refuse_unreal
from backend.errors import UserError
from backend.evaluation.answers import end_tokens
from backend.generations.meters import meters_for, read_all
from backend.generations.pieces import Pieces
from backend.generations.routed import RoutedDecoding, RoutedModel
from backend.generations.sampling import Sampler
from backend.generations.scoring import compare, top_tokens
from backend.generations.written import Stream, Written
from backend.routing.engine import RoutedEngine
from backend.routing.policy import RoutingPolicy
from backend.sparsity.engine import MaskedEngine
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor

Side: TypeAlias = Policy | RoutingPolicy
"""What decides a side: a mask policy, or for a mixture of experts a routing policy."""
SCORED_AT_ONCE = 16
"""Tokens of a side that the dense model reads at once, while the side goes on: one takes as long as eight."""


@dataclass(frozen=True)
class Setting:
    """What all sides of one prompt share.

    Attributes:
        prompt: The prompt's tokens.
        read: The prompt as dense has read it.
        tokenizer: The model's tokenizer.
        sampler: Draws the tokens.
        max_tokens: Longest text.
        prefill: How policies read the prompt.
        value_bytes: Bytes of one weight as it runs.
        began: When the prompt was taken up, by ``time.perf_counter``.
    """

    prompt: list[int]
    read: ReadPrompt
    tokenizer: Any
    sampler: Sampler
    max_tokens: int
    prefill: Any
    value_bytes: int
    began: float

    @property
    def room(self) -> int:
        """Tokens that a sequence may have, prompt included."""
        return len(self.prompt) + self.max_tokens


class DenseReader:
    """The dense model reading a side's text behind it, with a cache of its own.

    Args:
        engine: The model, dense (a mixture: with its original routing) while it reads.
        read: The prompt.
    """

    def __init__(self, engine: MaskedEngine | RoutedEngine, read: ReadPrompt) -> None:
        import copy

        self._engine = engine
        self._cache = copy.deepcopy(read.cache)
        self._next = read.logits[None].cpu()

    def logits(self, tokens: list[int], last: bool) -> Tensor:
        """Return dense's logits at the places of the next tokens, then read them. # [T, V]

        Args:
            tokens: What stands there.
            last: Nothing comes after them: the last one need not be read.
        """
        import torch

        fed = tokens[:-1] if last else tokens
        rows = [self._next]
        if fed:
            ids = torch.tensor([fed], device=self._engine.model.device)
            with torch.inference_mode():
                anatomy = self._engine.anatomy
                output = anatomy.decoder(input_ids=ids, past_key_values=self._cache, use_cache=True)
                self._cache = output.past_key_values
                rows.append(anatomy.head.logits(output.last_hidden_state[0]).cpu())
        found = torch.cat(rows)
        self._next = found[-1:]
        return found[: len(tokens)]


class FreeSide:
    """A side that goes on from its own text.

    Args:
        setting: What the sides share.
        policy: Its policy.
        stream: Where its tokens go.
        is_dense: It is the reference itself: dense, or a mixture with its original routing.
        calibration: What the policy fitted on its calibration text.
    """

    def __init__(
        self, setting: Setting, policy: Side, stream: Stream, is_dense: bool, calibration: Any = None
    ) -> None:
        self.policy, self.stream, self.is_dense = policy, stream, is_dense
        self.tokens: list[int] = []
        self.seconds = 0.0
        self.ended: str | None = None
        self.first_token_s: float | None = None
        self._setting, self._calibration = setting, calibration
        self._pieces = Pieces(setting.tokenizer, setting.prompt)
        self._ends = end_tokens(setting.tokenizer)
        self._unscored: list[tuple[int, Tensor]] = []
        self._decoding: Decoding | RoutedDecoding | None = None
        self._reader: DenseReader | None = None

    @property
    def from_shared_prompt(self) -> bool:
        """Whether its first token comes from the prompt that dense read for all sides.

        A mixture's sides read it themselves, for their caches follow it.
        """
        if isinstance(self.policy, RoutingPolicy):
            return False
        return self.is_dense or self._setting.prefill == "dense"

    def begin(self) -> None:
        """Write the first token of a prompt that was read densely: no weights have to be laid out for it.

        A policy that makes its masks of the prompt writes it after that pass, which its time to the first
        token has to hold (:meth:`lay_out`).
        """
        if self.from_shared_prompt and not _waits_for_the_prompt(self.policy):
            self._write(self._setting.read.logits, [])

    def lay_out(self, model: DecodingModel | RoutedModel) -> None:
        """Make ready to decode; a side that reads the prompt under its policy does so now."""
        setting = self._setting
        self._decoding = _decoding(model, setting, self.policy, self._calibration)
        self._meters = meters_for(self.policy, setting.value_bytes)
        if not self.is_dense:
            self._reader = DenseReader(model.engine, setting.read)
        if self.from_shared_prompt:
            logits = self._decoding.go_on(setting.read)
        else:
            import torch

            logits = self._decoding.read_prompt(torch.tensor(setting.prompt))
        for meter in self._meters:
            meter.start(self._decoding)
        if not self.tokens:
            self._write(logits, [])

    def step(self) -> None:
        """Write one more token, or end."""
        assert self._decoding is not None
        if self.ended is not None:
            return
        begun = time.perf_counter()
        logits = self._decoding.feed(self.tokens[-1])
        self.seconds += time.perf_counter() - begun
        self._write(logits, read_all(self._meters, self._decoding))

    def finish(self, ended: str) -> None:
        """Score what is left and say how the side ended."""
        self.ended = ended
        self._score(last=True)
        fed = len(self.tokens) - 1
        told: dict[str, Any] = {"mlp_density": None, "model_density": None, "counted": {}, "loop": None}
        if self._decoding is not None and fed > 0:
            reading = self._decoding.settle()
            told = {
                "mlp_density": reading.mlp_density,
                "model_density": reading.model_density,
                "counted": reading.counted(self._setting.value_bytes),
                "loop": self._decoding.loop,
            }
        rate = fed / self.seconds if fed > 0 and self.seconds else None
        self.stream.end(
            ended=ended, seconds=self.seconds, tokens_per_s=rate, first_token_s=self.first_token_s, **told
        )

    def _write(self, logits: Tensor, readings: list[Any]) -> None:
        logits = logits.detach().cpu()
        token = self._setting.sampler(logits, len(self.tokens))
        log_p = logits.double().log_softmax(-1)
        top = top_tokens(log_p, self._setting.tokenizer)
        text = self._pieces.add(token)
        self.tokens.append(token)
        self.stream.token(Written(token, text, float(log_p[token]), top, self.seconds, readings))
        if self.first_token_s is None:
            self.stream.flush()
            self.first_token_s = time.perf_counter() - self._setting.began
        self._unscored.append((token, logits))
        if token in self._ends:
            self.finish("end token")
        elif len(self.tokens) == self._setting.max_tokens:
            self.finish("length")
        elif len(self._unscored) >= SCORED_AT_ONCE:
            self._score(last=False)

    def _score(self, last: bool) -> None:
        import torch

        if not self._unscored:
            return
        tokens = [token for token, _ in self._unscored]
        own = torch.stack([logits for _, logits in self._unscored])
        self._unscored = []
        if self.is_dense:
            dense = own
        elif self._reader is not None:
            dense = self._reader.logits(tokens, last)
        else:  # it was stopped after the first token, which the shared prompt gave
            dense = self._setting.read.logits[None].cpu()
        self.stream.scores(compare(dense, own, tokens, self._setting.tokenizer))


def _decoding(
    model: DecodingModel | RoutedModel, setting: Setting, policy: Side, calibration: Any
) -> Decoding | RoutedDecoding:
    if isinstance(model, RoutedModel):
        assert isinstance(policy, RoutingPolicy)
        return RoutedDecoding(model.engine, policy, calibration)
    assert isinstance(policy, Policy)
    return Decoding(
        model,
        policy,
        setting.room,
        execution=execution_of(policy),
        prefill=setting.prefill,
        calibration=calibration,
    )


def how_run(policy: Side) -> str:
    """Return how a side runs: "routed", or a mask policy's execution."""
    return "routed" if isinstance(policy, RoutingPolicy) else execution_of(policy)


def execution_of(policy: Policy) -> Execution:
    """Return how a policy decodes here: gathered where kernels can skip what it drops, else masked."""
    try:
        refuse_unreal(policy)
    except UserError:
        return "masked"
    return "gathered"


def _waits_for_the_prompt(policy: Side) -> bool:
    """Tell whether a policy makes its masks of the prompt, in a pass of its own."""
    return isinstance(policy, Policy) and policy.prompt_alone


def why_no_text(policy: Side) -> str:
    """Return why a policy can have no text of its own, "" if it can."""
    if isinstance(policy, RoutingPolicy) or policy.prompt_alone:
        return ""
    if getattr(policy.prepare, "__func__", None) is Policy.prepare:
        return ""
    return (
        f"{policy.title} makes its masks from a dense pass over the whole text, so it can only be scored on "
        "the dense model's text."
    )
