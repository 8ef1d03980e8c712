"""The kinds of evaluation that a sweep can ask for."""

from backend.experiments.evaluations.fidelity import FidelityEvaluation
from backend.experiments.evaluations.kinds import EVALUATIONS, Evaluation, Outcome, make_evaluation
from backend.experiments.evaluations.latency import LatencyEvaluation

__all__ = [
    "EVALUATIONS",
    "Evaluation",
    "FidelityEvaluation",
    "LatencyEvaluation",
    "Outcome",
    "make_evaluation",
]
