"""Experiments, and what a scorer is."""
