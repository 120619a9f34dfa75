"""Prompts as the host encodes and carries them."""
