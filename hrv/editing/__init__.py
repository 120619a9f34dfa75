"""Prompt edits as plain data."""
