"""Where words stand in prompts, as one text encoder's tokenizer splits them: what makes two prompts comparable."""

from __future__ import annotations

from typing import Any

from ...hrv.building.pairs import Example, Placed
from ...hrv.prompts.tokens import TokenMap
from ..prompts.encoding import token_map_and_lengths


class WordPlaces:
    """Tells where the words of examples stand with one CLIP, as :data:`~...hrv.building.pairs.Places`.

    Each text is tokenised once. Tokenizers split a word otherwise behind a space than where a text begins, so words
    are looked at in their prompts. Raises HRVError as :func:`~..prompts.encoding.token_map` does.
    """

    def __init__(self, clip: Any):
        self.clip = clip
        self._read: dict[str, tuple[TokenMap, tuple[int, ...]]] = {}

    def __call__(self, example: Example, before: str) -> Placed:
        tokens, lengths = self._reading(example.prompt)
        # The text in front may hold the word too.
        earlier = len(self._reading(before)[0].occurrences(example.word))
        found = tokens.occurrences(example.word)[earlier : earlier + 1]
        own = tuple(position for words in found for word in words for position in word.positions)
        return Placed(lengths, tokens.content_positions, own)

    def _reading(self, text: str) -> tuple[TokenMap, tuple[int, ...]]:
        if text not in self._read:
            self._read[text] = token_map_and_lengths(self.clip, text)
        return self._read[text]
