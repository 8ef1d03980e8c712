"""The kinds of evaluation that a sweep can ask for."""

from backend.experiments.evaluations.answers import AnswersEvaluation
from backend.experiments.evaluations.fidelity import FidelityEvaluation
from backend.experiments.evaluations.kinds import EVALUATIONS, Evaluation, Outcome, make_evaluation

__all__ = [
    "EVALUATIONS",
    "AnswersEvaluation",
    "Evaluation",
    "FidelityEvaluation",
    "Outcome",
    "make_evaluation",
]
