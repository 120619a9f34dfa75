"""Attend and Excite in a sampling run."""
