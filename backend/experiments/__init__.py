"""Experiments: what a sweep is, its cells, running them, and the events they leave behind."""
