"""Runs a generation: the worker owns it, and every token goes to the run folder as it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend.decoding.decoder import DecodingModel, ReadPrompt, read_densely, ready_for
from backend.errors import UserError
from backend.experiments.calibration import calibrate, with_a_text
from backend.experiments.events import EventLog
from backend.experiments.provenance import provenance
from backend.experiments.runner import Clock
from backend.experiments.runs import Cancelled, RunFolder
from backend.generations.forced import score_forced
from backend.generations.prompts import Prompt, check_room, prompts_of
from backend.generations.request import DENSE, GenerationRequest
from backend.generations.resumed import complete_items
from backend.generations.routed import RoutedModel, holds_experts, refuse_unfit
from backend.generations.sampling import Sampler
from backend.generations.side import FreeSide, Setting, how_run, why_no_text
from backend.generations.written import Stream
from backend.routing.engine import RoutedEngine
from backend.routing.policy import RoutingPolicy

if TYPE_CHECKING:
    from backend.experiments.laboratory import Laboratory, Subject

KEPT_PROMPT = 1_024
"""Longest prompt whose keys and values stay in memory: a slider's next text need not read it again."""
STOPPED = "Stopped; the text so far is kept."


def run_generation(
    folder: RunFolder,
    laboratory: Laboratory,
    *,
    checkpoint: Callable[[], None] = lambda: None,
    between_tokens: Callable[[], None] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """Write what a run folder asks for; of a run that was begun before, what is not complete.

    Args:
        folder: The run.
        laboratory: Models and texts.
        checkpoint: Called between prompts, when the model is untouched.
        between_tokens: Called between tokens, when nothing else may use the model: the place to wait, or to
            raise ``Cancelled``; by default a request to stop is obeyed.
        report: Told how many prompts of how many are done.

    Returns:
        The run's status: ``done`` or ``cancelled``.

    Raises:
        UserError: The model, a text or a policy cannot be had, or a prompt does not fit.
    """
    log = folder.log()
    log.append("run_started", provenance=provenance(*laboratory.machine()))
    try:
        plan = _plan(folder, laboratory, log)
        before = plan.prompts - len(plan.left)
        clock, stop = Clock(len(plan.left)), between_tokens or folder.raise_if_cancelled
        for item, prompt in plan.left:
            checkpoint()
            # Not held between prompts: another run may pass at the checkpoint with another model, and both
            # at once may not fit.
            subject = laboratory.subject(plan.request.model, plan.request.dtype)
            _Item(log, plan, subject, laboratory, stop).write(item, prompt)
            del subject
            clock.window_done()
            done = before + clock.done
            log.append("progress", done=done, total=plan.prompts, seconds_left=clock.seconds_left())
            report(done, plan.prompts)
    except Cancelled:
        log.append("run_finished", status="cancelled", message=STOPPED)
        return "cancelled"
    except UserError as error:
        log.append("run_finished", status="failed", message=str(error))
        raise
    count = "1 prompt" if plan.prompts == 1 else f"{plan.prompts} prompts"
    log.append("run_finished", status="done", message=f"{count} written by {len(plan.policies)} sides.")
    return "done"


@dataclass(frozen=True)
class _Plan:
    """What a run writes, found good before its first token.

    Attributes:
        request: What is asked.
        policies: The sides' policies, the reference first.
        fitted: What each fitted on its calibration text, or None.
        prompts: How many prompts there are.
        left: Those that are not complete yet, with their numbers.
    """

    request: GenerationRequest
    policies: list[Any]
    fitted: list[Any]
    prompts: int
    left: list[tuple[int, Prompt]]


def _plan(folder: RunFolder, laboratory: Laboratory, log: EventLog) -> _Plan:
    """Return what a run folder asks for, without what is complete in its log.

    Raises:
        UserError: The model, a text or a policy cannot be had, or a prompt does not fit.
    """
    request = GenerationRequest.parse(folder.asked["spec"], f"run {folder.id}")
    request.plans()  # what is wrong is said before a model is loaded
    subject = laboratory.subject(request.model, request.dtype)
    sides = request.plans(holds_experts(subject.loaded.model))
    policies: list[Any] = [with_a_text(laboratory, policy) for policy in sides]
    prompts = prompts_of(request, laboratory, subject.loaded.tokenizer)
    for prompt in prompts:
        limit = getattr(subject.loaded.config.get_text_config(), "max_position_embeddings", None)
        check_room(prompt, request.max_tokens, limit)
    for policy in policies:
        if isinstance(policy, RoutingPolicy):
            refuse_unfit(subject, policy)
    read = [prompt.ids for prompt in prompts]
    fitted = [calibrate(laboratory, request.model, request.dtype, policy, read).fitted for policy in policies]
    known = complete_items(log.path, request.forced)
    left = [
        (item, prompt)
        for item, prompt in enumerate(prompts)
        if known.get(item) != _started(item, prompt, policies, subject)
    ]
    return _Plan(request, policies, fitted, len(prompts), left)


class _Item:
    """One prompt's texts.

    Args:
        log: The run's events.
        plan: What is asked, by which sides.
        subject: The model.
        laboratory: Keeps prompts that were read.
        stop: Raises ``Cancelled`` when that was asked for.
    """

    def __init__(
        self,
        log: EventLog,
        plan: _Plan,
        subject: Subject,
        laboratory: Laboratory,
        stop: Callable[[], None],
    ) -> None:
        self._log, self._subject, self._laboratory, self._stop = log, subject, laboratory, stop
        self._request, self._policies, self._fitted = plan.request, plan.policies, plan.fitted
        routed = isinstance(plan.policies[DENSE], RoutingPolicy)
        self._engine: Any = subject.routing if routed else subject.engine

    def write(self, item: int, prompt: Prompt) -> None:
        """Write all sides' texts and score them."""
        began = time.perf_counter()
        said = _started(item, prompt, self._policies, self._subject)
        self._log.append("generation_started", **said)
        request = self._request
        setting = Setting(
            prompt=prompt.ids,
            read=self._read(prompt.ids),
            tokenizer=self._subject.loaded.tokenizer,
            sampler=Sampler(request.temperature, request.top_p, request.seed, request.max_tokens),
            max_tokens=request.max_tokens,
            prefill=request.prefill,
            value_bytes=self._subject.value_bytes,
            began=began,
        )
        sides = [
            FreeSide(setting, policy, Stream(self._log, item, number, "free"), number == DENSE, fitted)
            for number, (policy, fitted) in enumerate(zip(self._policies, self._fitted, strict=True))
            if not why_no_text(policy)
        ]
        try:
            for side in sides:
                side.begin()
            if request.order == "together":
                self._together(sides)
            else:
                self._in_turn(sides)
        except (Cancelled, UserError):
            with suppress(UserError):  # a full disk takes no ends either; the first error is the one to tell
                for side in sides:
                    if side.ended is None:
                        side.finish("stopped")
            raise
        if request.forced:
            self._force(item, setting, sides[DENSE].tokens)

    def _together(self, sides: list[FreeSide]) -> None:
        """Write a token of each side in turn; memory lies as the first policy wants it."""
        first = sides[min(1, len(sides) - 1)].policy
        with self._ready(first) as model:
            for side in sides:
                side.lay_out(model)
            while any(side.ended is None for side in sides):
                for side in sides:
                    self._stop()
                    side.step()

    def _in_turn(self, sides: list[FreeSide]) -> None:
        """Write one side after the other; memory lies as each wants it."""
        for side in sides:
            with self._ready(side.policy) as model:
                side.lay_out(model)
                while side.ended is None:
                    self._stop()
                    side.step()

    def _force(self, item: int, setting: Setting, text: list[int]) -> None:
        sides = zip(self._policies, self._fitted, strict=True)
        for number, (policy, fitted) in list(enumerate(sides))[1:]:
            self._stop()
            stream = Stream(self._log, item, number, "forced")
            score_forced(self._engine, self._ready, setting, policy, text, stream, self._stop, fitted)

    def _ready(self, policy: Any) -> AbstractContextManager[DecodingModel | RoutedModel]:
        if isinstance(self._engine, RoutedEngine):
            return nullcontext(RoutedModel(self._engine))
        return ready_for(self._engine, policy, int8=self._request.dtype == "int8")

    def _read(self, ids: list[int]) -> ReadPrompt:
        """Return the prompt as dense reads it, read before if it was kept."""
        import torch

        def make() -> ReadPrompt:
            return read_densely(self._engine, torch.tensor(ids))

        if len(ids) > KEPT_PROMPT:
            return make()
        key = (self._request.model, self._request.dtype, tuple(ids))
        return self._laboratory.kept_prompt(key, make)


def _started(item: int, prompt: Prompt, policies: list[Any], subject: Subject) -> dict[str, Any]:
    """Return what ``generation_started`` says of a prompt, as it comes back from JSON."""
    loaded = subject.loaded
    said = {
        "item": item,
        "model": loaded.name,
        "model_sha256": loaded.sha256,
        "prompt": prompt.text,
        "read_as": prompt.read_as,
        "prompt_tokens": len(prompt.ids),
        "sides": [
            {
                "side": number,
                "policy": policy.name,
                "policy_version": type(policy).version,
                "settings": policy.canonical(),
                "how": policy.how,
                "execution": how_run(policy),
                "no_text": why_no_text(policy),
            }
            for number, policy in enumerate(policies)
        ],
    }
    found: dict[str, Any] = json.loads(json.dumps(said))
    return found
