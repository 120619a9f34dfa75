"""What people write into text fields, read."""

from __future__ import annotations

import re


def split_words(words: str) -> list[str]:
    r"""The phrases of a comma-separated field, without empty ones; "\," is a comma inside a phrase."""
    phrases = [phrase.replace(r"\,", ",").strip() for phrase in re.split(r"(?<!\\),", words)]
    return [phrase for phrase in phrases if phrase]
