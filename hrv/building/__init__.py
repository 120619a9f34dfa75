"""Builds: their convergence and their saved state."""
