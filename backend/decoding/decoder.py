"""Decoding one sequence under a policy, one token at a time: gathered (weights skipped) or masked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from backend.decoding.gathered_mlp import GatheredMLP
from backend.decoding.hub_step import HubStep
from backend.decoding.layout import laid_out, layout_for
from backend.decoding.lean_step import RELATIVE_TOLERANCE, LeanStep
from backend.decoding.lean_weights import LeanWeights, NotLean
from backend.decoding.parts import Parts
from backend.decoding.refusal import refuse_prefill, refuse_unreal
from backend.decoding.torch_mlp import TorchGatheredMLP
from backend.errors import UserError
from backend.sparsity.accounting import Reading
from backend.sparsity.dense_pass import DensePass
from backend.sparsity.engine import MaskedEngine, replaced_forward
from backend.sparsity.policy import Context, Policy, make_policy

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.anatomy import GatedMLP

Execution = Literal["gathered", "masked"]
Prefill = Literal["dense", "sparse"]


class Step(Protocol):
    """One token at a time through a model; ``name`` says which loop it is."""

    name: str
    parts: Parts

    def take(self, cache: Any, tokens: int) -> None:
        """Go on from a prompt that the model itself has read."""
        ...

    def __call__(self, token: int) -> Tensor:
        """Feed one token; return the logits of the next. # [V]"""
        ...


@dataclass(frozen=True)
class ReadPrompt:
    """A prompt that the dense model has read, from which any number of sequences can go on.

    Attributes:
        ids: Its tokens. # [T]
        cache: transformers' cache of its keys and values; whoever goes on from it copies it.
        logits: Of the token after it. # [V]
    """

    ids: Tensor
    cache: Any
    logits: Tensor


def read_densely(engine: MaskedEngine, ids: Tensor) -> ReadPrompt:
    """Let the dense model read a prompt. ``ids``: # [T]"""
    import torch

    with torch.inference_mode():
        output = engine.anatomy.decoder(input_ids=ids[None].to(engine.model.device), use_cache=True)
        logits = engine.anatomy.head.logits(output.last_hidden_state[0, -1:])[0]
    return ReadPrompt(ids, output.past_key_values, logits)


class DecodingModel:
    """A model whose memory is laid out for decoding (see :func:`ready_for`); what sequences share.

    Args:
        engine: The model.
        int8: Its linear weights were rounded to int8 and are to be read as such.

    Attributes:
        lean: The lean step's weights; None where it cannot be used.
        why_not_lean: Why not, in words; "" where it can.

    Raises:
        UserError: int8 was asked for and the lean step, which alone reads it, cannot be used.
    """

    def __init__(self, engine: MaskedEngine, *, int8: bool = False) -> None:
        use_threads()
        self.engine = engine
        self.int8 = int8
        self.lean: LeanWeights | None = None
        self.why_not_lean = ""
        try:
            self.lean = LeanWeights.of(engine.model, engine.anatomy, int8=int8)
            self._check()
        except NotLean as reason:
            self.lean, self.why_not_lean = None, str(reason)
            if int8:
                raise UserError(
                    "int8 weights are read by the lean decode loop alone, and this model cannot use it: "
                    f"{reason}."
                ) from reason

    @property
    def context_limit(self) -> int | None:
        """Tokens that the model can attend to, None if it does not say."""
        config = self.engine.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def _check(self) -> None:
        """Compare the lean step with the model itself on a few tokens.

        Raises:
            NotLean: Their logits differ.
        """
        import torch

        ids = torch.arange(3, 11)[None] % self.engine.model.config.get_text_config().vocab_size
        with torch.inference_mode():
            hidden = self.engine.anatomy.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
            expected = self.engine.anatomy.head.logits(hidden)
        step = self._lean_step(make_policy("dense", {}), self.engine.contexts(make_policy("dense", {})), 16)
        got = torch.stack([step(int(token)) for token in ids[0]])
        if not torch.allclose(got, expected, rtol=0, atol=RELATIVE_TOLERANCE * float(expected.abs().max())):
            raise NotLean("its logits are not those of a Llama-style decoder")

    def _lean_step(self, policy: Policy, contexts: dict[int, Context], room: int) -> LeanStep:
        assert self.lean is not None
        matrices = self.lean.mlps(input_major=self._input_major(policy))
        mlps = {
            layer: GatheredMLP(mlp, matrices[layer], policy, contexts[layer], self.lean.kinds[layer])
            for layer, mlp in self.engine.anatomy.mlps.items()
        }
        return LeanStep(self.lean, mlps, room)

    def _input_major(self, policy: Policy) -> bool:
        """Tell how gate and up lie; int8 copies are made as the policy wants them."""
        if self.int8:
            return layout_for(policy) == "input-major"
        first = next(iter(self.engine.anatomy.mlps.values()))
        return not first.gate_weight.is_contiguous()


@contextmanager
def ready_for(engine: MaskedEngine, policy: Policy, *, int8: bool = False) -> Iterator[DecodingModel]:
    """Lay a model's memory out for a policy (and dense) for the time of a ``with`` block.

    Args:
        engine: The model.
        policy: Whose skips the layout serves; others decode too, as fast as that layout lets them.
        int8: Its linear weights were rounded to int8 and are to be read as such, from copies.
    """
    with laid_out(engine.anatomy, "row-major" if int8 else layout_for(policy)):
        yield DecodingModel(engine, int8=int8)


class Decoding:
    """One sequence: read a prompt, then feed token after token.

    Args:
        model: The model.
        policy: The policy.
        room: Tokens that the sequence may have, prompt included.
        execution: Gathered reads only what the policy chose; masked computes all and multiplies by masks.
        prefill: Whether the prompt is read dense or under the policy.
        calibration: What the engine's ``calibrate`` returned for this policy.

    Attributes:
        reading: What the decoded tokens read (a sparse prompt included).
        loop: Which loop runs: "lean" or "transformers".

    Raises:
        UserError: The policy cannot be run this way, or the room exceeds the model's context.
    """

    def __init__(
        self,
        model: DecodingModel,
        policy: Policy,
        room: int,
        *,
        execution: Execution = "gathered",
        prefill: Prefill = "dense",
        calibration: Any = None,
    ) -> None:
        if execution == "gathered":
            refuse_unreal(policy)
        refuse_prefill(policy, prefill)
        limit = model.context_limit
        if limit is not None and room > limit:
            raise UserError(
                f"Prompt and new tokens come to {room:,} tokens, but the model's context holds {limit:,}."
            )
        self.model, self.policy = model, policy
        self.reading = Reading(model.engine.anatomy, policy)
        self._prefill = prefill
        self._contexts = model.engine.contexts(policy, calibration=calibration)
        self._mlp_seconds = 0.0
        self._kept: list[tuple[Any, ...]] = []
        self._masked_token: Reading | None = None
        self._make = partial(self._make_step, execution, room)
        self._step = self._make()

    @property
    def loop(self) -> str:
        """Which loop runs: "lean" or "transformers"."""
        return self._step.name

    @property
    def parts(self) -> Parts:
        """What the last token's time went to."""
        return self._step.parts

    def read_prompt(self, ids: Tensor) -> Tensor:
        """Read the prompt; return the logits of the token after it. # [T] → [V]"""
        engine = self.model.engine
        self._look_at(ids)
        with ExitStack() as stack:
            if self._prefill == "sparse":
                stack.enter_context(engine.masked(self.policy, self._contexts, self.reading))
            read = read_densely(engine, ids)
        return self._take(read)

    def go_on(self, read: ReadPrompt) -> Tensor:
        """Go on from a prompt that was read before; return the logits of the token after it. # [V]"""
        self._look_at(read.ids)
        return self._take(read)

    def _look_at(self, ids: Tensor) -> None:
        """Let a policy that makes its masks of the prompt do so."""
        import torch

        if not self.policy.prompt_alone:
            return
        engine = self.model.engine
        with torch.inference_mode(False):  # it may take gradients
            before = DensePass(engine.model, engine.anatomy, ids[None].to(engine.model.device), len(ids))
            prepared = self.policy.prepare(before)
        self._contexts = {
            layer: replace(context, prepared=prepared) for layer, context in self._contexts.items()
        }
        self._step = self._make()

    def _take(self, read: ReadPrompt) -> Tensor:
        self._step.take(read.cache, len(read.ids))
        return read.logits

    def feed(self, token: int) -> Tensor:
        """Feed one token; return the logits of the next. # [V]"""
        logits = self._step(token)
        if self._masked_token is not None:
            self.reading.merge(self._masked_token)
        else:
            self._kept.append(tuple((m.kept_in, m.kept_mid) for m in self._mlps.values()))
        return logits

    def contexts(self) -> list[Context]:
        """Return the contexts of the layers with an MLP, in order, with the sequence's state."""
        return [self._contexts[layer] for layer in self.model.engine.anatomy.mlps]

    def layer_densities(self) -> list[float]:
        """Return each MLP layer's density for the last token."""
        if self._masked_token is not None:
            return list(self._masked_token.layer_density().values())
        reading = Reading(self.model.engine.anatomy, self.policy)
        self._account(reading, self._kept[-1:])
        return list(reading.layer_density().values())

    def settle(self) -> Reading:
        """Return what was read so far, the policy's own tallies included; the sequence is at its end."""
        self._account(self.reading, self._kept)
        self._kept = []
        for layer in self.model.engine.anatomy.mlps:
            for tally in self.policy.tallies(self._contexts[layer]):
                self.reading.add_tally(tally)
        return self.reading

    def _account(self, reading: Reading, kept: list[tuple[Any, ...]]) -> None:
        for token in kept:
            for (layer, mlp), (first, middle) in zip(
                self.model.engine.anatomy.mlps.items(), token, strict=False
            ):
                reading.add_shares(layer, first / mlp.hidden_size, middle / mlp.neurons, 1)

    def _make_step(self, execution: Execution, room: int) -> Step:
        engine = self.model.engine
        self._mlps: dict[int, Any] = {}
        if execution == "masked":
            return HubStep(engine, self._masked, None)
        lean = self.model.lean
        if lean is not None and (lean.window is None or room <= lean.window):
            step = self.model._lean_step(self.policy, self._contexts, room)
            self._mlps = dict(step.mlps)
            return step
        self._mlps = {layer: self._gathered(mlp) for layer, mlp in engine.anatomy.mlps.items()}
        return HubStep(engine, self._replaced, lambda: self._mlp_seconds)

    def _masked(self) -> AbstractContextManager[None]:
        self._masked_token = Reading(self.model.engine.anatomy, self.policy)
        return self.model.engine.masked(self.policy, self._contexts, self._masked_token)

    def _gathered(self, mlp: GatedMLP) -> TorchGatheredMLP:
        return TorchGatheredMLP(mlp, self.policy, self._contexts[mlp.layer])

    @contextmanager
    def _replaced(self) -> Iterator[None]:
        """Compute the MLPs gathered for the time of a step, and time them."""

        def timed(gathered: TorchGatheredMLP) -> Callable[[Tensor], Tensor]:
            def forward(x: Tensor) -> Tensor:
                start = time.perf_counter()
                out = gathered(x)
                self._mlp_seconds += time.perf_counter() - start
                return out

            return forward

        with ExitStack() as stack:
            for layer, gathered in self._mlps.items():
                module = self.model.engine.anatomy.mlps[layer].module
                stack.enter_context(replaced_forward(module, timed(gathered)))
            yield


def use_threads() -> None:
    """Let the kernels use as many threads as torch does."""
    import numba
    import torch

    most = int(getattr(numba.config, "NUMBA_NUM_THREADS", 1))
    numba.set_num_threads(min(torch.get_num_threads(), most))
