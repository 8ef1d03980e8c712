"""One point, here and now: the same cell a sweep would run, found if it is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backend.errors import UserError
from backend.experiments.evaluations import (
    Evaluation,
    ExpertStoreEvaluation,
    FidelityEvaluation,
    LatencyEvaluation,
    RoutingEvaluation,
)
from backend.experiments.events import Measurement
from backend.experiments.known import KnownResult, known_results
from backend.experiments.laboratory import Laboratory
from backend.experiments.runner import Progress, run_sweep
from backend.experiments.runs import RunFolder
from backend.experiments.sweep import one_policy
from backend.methods import every_method

QUALITY = ("perplexity", "nll", "delta_nll", "kl", "agreement")
WITH_STDERR = ("nll", "delta_nll", "kl")


def measure_point(
    laboratory: Laboratory,
    model: str,
    policy: str,
    settings: dict[str, Any],
    evaluation: dict[str, Any],
    report: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Measure one policy, as a run of its own; a known cell is found instead.

    Args:
        laboratory: Models and texts.
        model: Catalog name, hub id or folder.
        policy: The method's name.
        settings: Its settings.
        evaluation: Settings of the evaluation.
        report: Told of the progress.

    Returns:
        What was measured, with the cell's model, policy, settings, text and run. Of fidelity: perplexity,
        nll, nll_stderr, delta_nll, delta_nll_stderr, kl, kl_stderr (nats/token), agreement, scored_tokens,
        mlp_density, model_density, text_sha256, seconds. Of routing: the same without densities, and
        miss_rate, misses_per_token, miss_bytes_per_token, experts_per_token, routing_change and more, with
        standard errors, and each layer's miss rate. Of latency: tokens_per_s, ms_per_token_median, p10,
        p90, dense_ms_per_token_median, speedup, mlp_ms, attention_ms, head_ms, overhead_ms, bytes_per_token,
        bandwidth_bytes_per_s, bandwidth_share and more, times in milliseconds. Of an expert store:
        ms_per_token_median, p10, p90, resident_ms_per_token_median, stock_ms_per_token_median, miss_rate,
        loaded_bytes_per_token, load_bytes_per_s, waiting_share, page_cache_bypass and more.

    Raises:
        UserError: Something asked for is wrong or missing, or the cell failed.
    """
    sweep = one_policy("measure", model, policy, settings, evaluation)
    (plan,) = sweep.plans()
    cell = laboratory.resolve(plan)
    known = known_results(laboratory.home)
    if cell.id not in known:
        folder = RunFolder.create(laboratory.home, sweep, "point")
        run_sweep(folder, laboratory, known, report=report)
        if cell.id not in known:
            raise UserError(folder.failure())
    result = known[cell.id]
    record = _RECORDS.get(type(cell.evaluation), _everything)
    return {
        "model": cell.model,
        "policy": policy,
        "settings": cell.policy.canonical(),
        "text": cell.evaluation.text,
        **record(result),
        "text_sha256": cell.text_sha256,
        "seconds": result.seconds,
        "run": result.run,
        "how": cell.policy.how,
    }


def quality_kind(policy: str) -> str:
    """Return the kind of evaluation that measures a method's quality: fidelity, or routing.

    Raises:
        UserError: There is no such method.
    """
    method = every_method()[policy]
    return next(
        kind.kind for kind in (FidelityEvaluation, RoutingEvaluation) if issubclass(method, kind.takes)
    )


def latency_kind(policy: str) -> str:
    """Return the kind of evaluation that times a method: latency, or expert_store.

    Raises:
        UserError: There is no such method.
    """
    method = every_method()[policy]
    return next(
        kind.kind for kind in (LatencyEvaluation, ExpertStoreEvaluation) if issubclass(method, kind.takes)
    )


def _fidelity(result: KnownResult) -> dict[str, Any]:
    found: dict[str, Measurement] = {each["metric"]: each for each in result.measurements}
    record: dict[str, Any] = {}
    for metric in (*QUALITY, "mlp_density", "model_density"):
        record[metric] = found[metric]["value"]
        if metric in WITH_STDERR:
            record[f"{metric}_stderr"] = found[metric]["stderr"]
    record["scored_tokens"] = found["nll"]["n"]
    return record


def _routing(result: KnownResult) -> dict[str, Any]:
    scored = next(each["n"] for each in result.measurements if each["metric"] == "nll")
    return {**_everything(result), "scored_tokens": scored}


def _everything(result: KnownResult) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for each in result.measurements:
        record[each["metric"]] = each["value"]
        if each["stderr"] is not None:
            record[f"{each['metric']}_stderr"] = each["stderr"]
    return record


_RECORDS: dict[type[Evaluation], Callable[[KnownResult], dict[str, Any]]] = {
    FidelityEvaluation: _fidelity,
    RoutingEvaluation: _routing,
}
