"""Figures composed from stored results by a small file: a paper's Makefile can build them again."""

from backend.figures.recipes import memory, moe, trade_off  # noqa: F401 (registers the kinds)
from backend.figures.recipes.panels import RECIPES, PanelRecipe, Stored, recipe
from backend.figures.recipes.recipe import FigureRecipe, load_figure

__all__ = ["RECIPES", "FigureRecipe", "PanelRecipe", "Stored", "load_figure", "recipe"]
