"""Sparsity Lens: the backend that runs, stores and draws sparsity experiments on real models."""

__version__ = "0.1.0"
