"""Generations: texts that a model writes dense and under policies, token by token, side by side."""

from backend.generations.columns import TokenColumn
from backend.generations.request import DENSE, LONGEST, MOST_POLICIES, GenerationRequest

__all__ = ["DENSE", "LONGEST", "MOST_POLICIES", "GenerationRequest", "TokenColumn"]
