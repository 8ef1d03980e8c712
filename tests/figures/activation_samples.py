"""Made-up results of sparse activation for tests; every name says that they are test data."""

from __future__ import annotations

import math
from typing import Any

from backend.evaluation.statistics import estimate
from backend.experiments.cells import Cell
from backend.experiments.evaluations import AnswersEvaluation, Evaluation, FidelityEvaluation, RanksEvaluation
from backend.home import Home
from backend.sparsity import Policy, make_policy
from tests.figures.figures_samples import finished, write_run

MODEL = "test-model-activation"
QUESTIONS = 6
LAYERS = 4
KEPT = (0.2, 0.5, 0.8)
LOSSES = {
    "corrected_gxo": 4.0, "dense_magnitude": 40.0, "gxo": 25.0, "snip": 30.0, "gradient": 90.0,
    "expected_fisher": 35.0, "prompt_attribution": 70.0, "dip": 45.0, "random": 97.0,
}  # fmt: skip
"""BLEU lost at 80 % sparsity."""
OF_LABEL = {"own": 0.0, "next": 2.0, "second": 60.0, "random": 50.0}


def write_activation(home: Home) -> Home:
    """Fill a home with made-up answers of both forms, text windows and rankings; return the home."""
    forced = AnswersEvaluation(text="made-up", questions=QUESTIONS, form="forced")
    free = AnswersEvaluation(text="made-up", questions=QUESTIONS, form="free")
    asked = [*_grid("corrected_gxo", "gxo", "snip", "gradient", "dense_magnitude", "random"), *_labels()]
    asked += _grid("expected_fisher", "prompt_attribution", "dip")
    events = [_answers(policy, forced) for policy in asked]
    events += [_answers(policy, free) for policy in _grid("corrected_gxo", "dense_magnitude")]
    text = FidelityEvaluation(text="made-up-text", tokens=256, window=64)
    events += [
        finished(_cell(policy, text))
        for policy in (*_grid("corrected_gxo", "dense_magnitude"), *_labels(), make_policy("dense", {}))
    ]
    ranks = RanksEvaluation(text="made-up-text", tokens=256, window=64)
    events += [_ranks(make_policy(name, {"keep": 0.2}), ranks) for name in ("corrected_gxo", "gxo")]
    write_run(home, [], "20260102-000000-test-activation-0000", more=events)
    return home


def loss(policy: Policy) -> float:
    """Return the made-up BLEU a policy loses: less the more it keeps."""
    kept = policy.canonical().get("keep", policy.canonical().get("density", 1.0))
    lost = LOSSES[policy.name] + OF_LABEL[policy.canonical().get("label", "own")]
    return min(99.0, lost * (1 - kept) / 0.8)


def _grid(*names: str) -> list[Policy]:
    setting = {"dip": "density"}
    return [make_policy(name, {setting.get(name, "keep"): kept}) for name in names for kept in KEPT]


def _labels() -> list[Policy]:
    return [
        make_policy("corrected_gxo", {"keep": kept, "label": label})
        for label in ("second", "random")
        for kept in (0.2, 0.5)
    ]


def _cell(policy: Policy, evaluation: Evaluation) -> Cell:
    return Cell(MODEL, "a" * 64, policy, evaluation, f"sha-{evaluation.text}".ljust(64, "0"))


def _answers(policy: Policy, evaluation: AnswersEvaluation) -> dict[str, Any]:
    wobble = [math.sin(1.3 * place + len(policy.name)) for place in range(QUESTIONS)]
    bleu = [100 - loss(policy) + 0.9 * each for each in wobble]
    windows = {"bleu": bleu, "rouge_l": [each / 100 for each in bleu]}
    windows["token_agreement"] = windows["rouge_l"]
    if evaluation.form == "forced":
        windows |= {metric: [(101 - each) / 20 for each in bleu] for metric in ("kl", "delta_nll")}
    return _event(policy, evaluation, windows, with_density=True)


def _ranks(policy: Policy, evaluation: RanksEvaluation) -> dict[str, Any]:
    windows = {
        f"{metric}{layer}": [0.5 + 0.1 * place for place in range(4)]
        for metric in ("rank_correlation", "top_overlap")
        for layer in ("", *(f"_{layer:02d}" for layer in range(LAYERS)))
    }
    event = _event(policy, evaluation, windows, with_density=False)
    return event | {"windows": {metric: windows[metric] for metric in ("rank_correlation", "top_overlap")}}


def _event(
    policy: Policy, evaluation: Evaluation, windows: dict[str, list[float]], *, with_density: bool
) -> dict[str, Any]:
    found = {metric: estimate(values, [1] * len(values)) for metric, values in windows.items()}
    numbers: list[tuple[str, float, float | None]] = [(m, e.value, e.stderr) for m, e in found.items()]
    if with_density:
        density = policy.expected_density()
        assert density is not None
        numbers += [("mlp_density", density, None), ("model_density", 0.4 + 0.6 * density, None)]
    made = _cell(policy, evaluation)
    measurements = [
        {"metric": m, "value": v, "stderr": s, "n": QUESTIONS, "unit": "made up", "how": policy.how}
        for m, v, s in numbers
    ]
    return {
        "kind": "cell_finished", "cell": made.id, "description": made.description(),
        "measurements": measurements, "windows": windows, "seconds": 1.0,
    }  # fmt: skip
