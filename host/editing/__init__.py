"""Prompt edits in a sampling run."""
