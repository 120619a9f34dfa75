"""Concept-words in sentences, as a model gets them that makes more of a text than its text encoder does."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from ...hrv.errors import HRVError, quoted
from ...hrv.prompts.frames import ALONE, WORD, fill
from ..prompts.carried import TEXT_KEYS
from ..prompts.encoding import encode_once, token_map


class WordText(NamedTuple):
    """A sentence as a conditioning's entry, and the places of a word's own tokens in it."""

    tensor: torch.Tensor  # [1, T, C]
    extras: dict[str, Any]
    positions: tuple[int, ...]

    @property
    def may_be_stacked(self) -> bool:
        """Whether it can be a row of one conditioning beside others of its length."""
        return not any(name in self.extras for name in TEXT_KEYS)

    def shortened(self) -> WordText:
        """The word's own tokens alone, where the model gets them as they are."""
        if not self.may_be_stacked:
            return self
        return WordText(self.tensor[:, list(self.positions)], {}, tuple(range(len(self.positions))))


def word_text(clip: Any, word: str, frame: str = ALONE) -> WordText:
    """The sentence that a frame (:mod:`...hrv.prompts.frames`) makes of a word.

    Raises HRVError for a word that has no token there, for an embedding that is not finite, and as
    :func:`~..prompts.encoding.token_map` and :func:`~..prompts.encoding.encode_once` do.
    """
    text = fill(frame, word)
    before = len(token_map(clip, frame.partition(WORD)[0]).occurrences(word))
    found = token_map(clip, text).occurrences(word)
    if before >= len(found):
        raise HRVError(f"The concept-word {quoted(word)} has no token of its own: remove it or use another word.")
    positions = tuple(position for one in found[before] for position in one.positions)
    tensor, extras = encode_once(clip, text)
    require_finite(f"the concept-word {quoted(word)}", tensor)
    return WordText(tensor.float().cpu(), extras, positions)


def require_finite(what: str, encoded: torch.Tensor) -> None:
    """Raise HRVError if a text encoder made numbers of ``what`` that are not finite."""
    if not encoded.isfinite().all():
        raise HRVError(
            f"The text encoder gave numbers that aren't finite for {what}. The checkpoint may be broken, or its "
            "precision too low."
        )
