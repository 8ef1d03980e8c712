"""Figures as PGFPlots: TeX that draws from CSV files, at the same places as Matplotlib's page."""

from backend.figures.pgfplots.document import to_pgfplots

__all__ = ["to_pgfplots"]
