"""Evaluation: texts, windows, perplexity, and fidelity to the dense model."""
