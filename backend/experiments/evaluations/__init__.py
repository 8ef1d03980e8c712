"""The kinds of evaluation that a sweep can ask for."""

from backend.experiments.evaluations.answers import AnswersEvaluation
from backend.experiments.evaluations.expert_store import ExpertStoreEvaluation
from backend.experiments.evaluations.fidelity import FidelityEvaluation
from backend.experiments.evaluations.kinds import (
    EVALUATIONS,
    Evaluation,
    KeptOutcome,
    Outcome,
    make_evaluation,
)
from backend.experiments.evaluations.latency import LatencyEvaluation
from backend.experiments.evaluations.ranks import RanksEvaluation
from backend.experiments.evaluations.routing import RoutingEvaluation

__all__ = [
    "EVALUATIONS",
    "AnswersEvaluation",
    "Evaluation",
    "ExpertStoreEvaluation",
    "FidelityEvaluation",
    "KeptOutcome",
    "LatencyEvaluation",
    "Outcome",
    "RanksEvaluation",
    "RoutingEvaluation",
    "make_evaluation",
]
