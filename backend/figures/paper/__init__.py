"""Figures for papers: what a figure is there, its settings, and every file that is made of it."""

from backend.figures.paper.figure import Panel, PaperFigure, RunRecord
from backend.figures.paper.layout import to_page
from backend.figures.paper.palettes import PALETTES, Palette
from backend.figures.paper.settings import CUSTOM, PaperSettings
from backend.figures.paper.venues import VENUES, Venue

__all__ = [
    "CUSTOM",
    "PALETTES",
    "VENUES",
    "Palette",
    "Panel",
    "PaperFigure",
    "PaperSettings",
    "RunRecord",
    "Venue",
    "to_page",
]
