"""Prompts as words and token positions."""
