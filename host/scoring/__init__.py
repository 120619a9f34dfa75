"""Scorers that need a model of the host or of transformers."""
