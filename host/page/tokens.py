"""The tokens of a prompt for the page, as a run found them."""

from __future__ import annotations

from typing import Any

from ...hrv.prompts.tokens import TokenMap


def tokens_told(words: TokenMap) -> dict[str, Any]:
    """The words with their pieces and positions, how many tokens there are, and how many each group has.

    In the form of the route /hrv/tokens (web/hrv/words.js); all tokens are one chunk, and weights aren't told.
    """
    return {
        "words": [
            {"text": word.text, "pieces": list(word.pieces), "positions": list(word.positions), "weight": 1.0}
            for word in words.words
        ],
        "length": words.length,
        "chunk": words.length,
        "groups": {name: len(positions) for name, positions in words.groups if positions},
    }
