"""Records a policy: runs it over a text, and reduces each hook's masks to the misses of every cache size."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backend.errors import UserError
from backend.experiments.calibration import calibrate
from backend.experiments.evaluations import FidelityEvaluation
from backend.experiments.laboratory import Laboratory
from backend.experiments.provenance import provenance
from backend.experiments.recordings import RULES, Key, Recording, RecordingInfo, save_recording
from backend.experiments.runner import Clock, Progress
from backend.experiments.runs import Cancelled, RunFolder
from backend.residency import MaskTrace, miss_curves_of
from backend.sparsity.accounting import Reading
from backend.sparsity.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from backend.residency import MissCurve

WARM_AFTER = 0.125
"""Share of a window that only warms the caches, for the warm curves."""


def run_recording(
    folder: RunFolder,
    laboratory: Laboratory,
    *,
    checkpoint: Callable[[], None] = lambda: None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> str:
    """Record the one policy a run folder asks for.

    Args:
        folder: The run; its sweep has one policy.
        laboratory: Models and texts.
        checkpoint: Called between windows, when the model is untouched.
        report: Told of the progress after each window.

    Returns:
        The run's status: ``done`` or ``cancelled``.

    Raises:
        UserError: A model or text is missing, or the policy cannot be recorded.
    """
    log = folder.log()
    made_with = provenance(*laboratory.machine())
    log.append("run_started", provenance=made_with)
    try:
        recording = _record(folder, laboratory, made_with, checkpoint, report)
        path = save_recording(laboratory.home, recording)
    except Cancelled:
        log.append("run_finished", status="cancelled", message="Cancelled; nothing was recorded.")
        return "cancelled"
    except UserError as error:
        log.append("run_finished", status="failed", message=str(error))
        raise
    log.append("run_finished", status="done", message=f"Recorded to {path.name}.")
    return "done"


def _record(
    folder: RunFolder,
    laboratory: Laboratory,
    made_with: dict[str, Any],
    checkpoint: Callable[[], None],
    report: Callable[[Progress], None],
) -> Recording:
    plans = folder.sweep.plans()
    if len(plans) != 1:
        raise UserError(f"A recording is of one policy; this run asks for {len(plans)}.")
    (plan,) = plans
    if not isinstance(plan.evaluation, FidelityEvaluation):
        raise UserError("A recording is of windows of a text; leave the kind of evaluation out.")
    policy: Any = plan.policy
    if not isinstance(policy, Policy) or not {"mlp_in", "mlp_mid"} & set(policy.used_sites()):
        raise UserError(f"{policy.title} masks no MLP, so there is nothing to record.")
    if policy.looks_at_cache:
        raise UserError(f"The masks of {policy.title} depend on the cache; measure it at each size instead.")
    cell = laboratory.resolve(plan)
    policy = cell.policy
    subject = laboratory.subject(plan.model, plan.evaluation.dtype)
    windows = laboratory.reference(subject, plan.evaluation).windows
    fitted = calibrate(laboratory, plan.model, plan.evaluation.dtype, policy, windows.ids.tolist()).fitted
    reading = Reading(subject.engine.anatomy, policy)
    curves: dict[Key, MissCurve] = {}
    clock = Clock(len(windows))
    for index in range(len(windows)):
        checkpoint()
        ids = windows.ids[index : index + 1].to(subject.loaded.model.device)
        watch = _Watch(curves)
        _, read = subject.engine.hidden_states(
            policy, ids, sequences=(index,), calibration=fitted, watch=watch
        )
        reading.merge(read)
        clock.window_done()
        left = clock.seconds_left()
        folder.log().append("progress", cell=cell.id, done=clock.done, total=clock.total, seconds_left=left)
        report(Progress(f"recording {policy.name}", clock.done, clock.total, left))
    info = RecordingInfo(
        path=laboratory.home.root,
        cell_id=cell.id,
        description=cell.description(),
        mlp_density=reading.mlp_density,
        model_density=reading.model_density,
        provenance={**made_with, "recorded_at": time.time()},
    )
    return Recording(info, curves)


class _Watch:
    """Reduces each mask to its curves as it is applied, and adds them up over sequences."""

    def __init__(self, curves: dict[Key, MissCurve]) -> None:
        self.curves = curves

    def __call__(self, layer: int, site: Any, mask: Tensor, values: Tensor) -> None:
        """Take one mask of one window. # both [1, T, N]"""
        import numpy as np

        trace = MaskTrace.from_masks(mask[0].cpu().numpy(), values[0].float().cpu().numpy())
        late = np.arange(trace.tokens) >= int(WARM_AFTER * trace.tokens)
        for rule in RULES:
            cold, warm = miss_curves_of(trace, rule, late)
            self._add((layer, site, rule, "cold"), cold)
            self._add((layer, site, rule, "warm"), warm)

    def _add(self, key: Key, curve: MissCurve) -> None:
        self.curves[key] = self.curves[key] + curve if key in self.curves else curve
