"""The tokens of a prompt for the page (web/hrv/words.js)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...hrv.prompts.tokens import PromptWord, TokenMap


def tokens_told(words: TokenMap, chunk: int, weight: Callable[[PromptWord], float]) -> dict[str, Any]:
    """The words with their pieces, positions and weights, how many tokens there are, and how many a chunk has."""
    told = [
        {"text": word.text, "pieces": list(word.pieces), "positions": list(word.positions), "weight": weight(word)}
        for word in words.words
    ]
    return {"words": told, "length": words.length, "chunk": chunk}


def run_tokens_told(words: TokenMap) -> dict[str, Any]:
    """The same as a run found them, in one chunk and without weights; and how many tokens each group has."""
    groups = {name: len(positions) for name, positions in words.groups if positions}
    return {**tokens_told(words, words.length, lambda word: 1.0), "groups": groups}
