"""Every concept-word encoded alone, and which of them the heads are asked about.

Two estimators ask the same question. "paper" draws one word per concept anew for every image, step and layer (arXiv
2412.02237, section 3). "all words" asks about every word of every concept each time and averages over a concept's
words: more tokens in the softmax, and no noise from the draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import comfy.model_management
import numpy as np
import numpy.typing as npt
import torch

from ...hrv.draws import draw_words
from ...hrv.errors import quoted
from ...hrv.prompts.tokens import TEMPLATE
from ...hrv.relevance.vocabulary import Vocabulary
from ..prompts.encoding import WordEmbedding, token_map, word_tokens
from .word_texts import WordText, require_finite, word_text

PAPER_ESTIMATOR, ALL_WORDS_ESTIMATOR = ESTIMATORS = ("paper", "all words")

# Words that go through the text encoder at once: with 77 tokens each as much work as a few long prompts.
_TOGETHER = 32

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """What the heads are asked about in one step, on one device.

    ``tokens``  int64 [layers, images, T]: rows of the words' context, the start token first.
    ``there``   bool [layers, images, T]: False where an image has fewer tokens.
    ``places``  int64 [layers, images, N, W, L]: which of the T is the l-th token of word w of concept n, or -1.

    Where all images are asked the same, that axis has the size 1.
    """

    tokens: torch.Tensor
    there: torch.Tensor
    places: torch.Tensor


class ConceptWords:
    """The words of a vocabulary, each encoded alone by a text encoder.

    ``context``  float32 [1 + all tokens, C]: the start token, then the tokens of all words; None ``in_texts``, where
                 only the model knows it (:meth:`context_in`).
    ``tokens``   how many tokens these are.
    ``rows``     int64 [N, W, L]: rows of ``context`` of each word of each concept, -1 where there is none.
    ``numbers``  how many words each concept has.

    A cancel takes effect now and then. Raises HRVError for a word without tokens, and for one that the text encoder
    makes numbers of that are not finite.
    """

    def __init__(self, clip: Any, vocabulary: Vocabulary, in_texts: bool = False):
        every = [word for _, listed in vocabulary for word in listed]
        self.numbers = [len(listed) for _, listed in vocabulary]
        self._texts: list[WordText] = []
        self.context: torch.Tensor | None = None
        if in_texts:
            self._texts = _texts_of(clip, every)
            lengths = [len(text.positions) for text in self._texts[1:]]
        else:
            start, words = _embeddings_of(clip, every)
            self.context = torch.cat([start, *words])
            lengths = [len(tokens) for tokens in words]
        self.tokens = 1 + sum(lengths)
        self.rows: Places = np.full((len(self.numbers), max(self.numbers), max(lengths)), -1, dtype=np.int64)
        firsts = 1 + np.cumsum([0, *lengths])
        in_turn = zip(firsts, lengths, strict=False)
        for concept, number in enumerate(self.numbers):
            for index, (first, length) in enumerate(islice(in_turn, number)):
                self.rows[concept, index, :length] = range(first, first + length)
        self._placed: torch.Tensor | None = None
        self._all: Asked | None = None

    def context_in(self, made: Callable[[WordText], torch.Tensor]) -> torch.Tensor:
        """The context [1 + all tokens, C] of texts of which ``made`` gives what the model gets [T, C]."""
        return torch.cat([made(text)[list(text.positions)] for text in self._texts])

    def context_on(self, q: torch.Tensor) -> torch.Tensor:
        """:attr:`context` on the device and in the type of queries ``q``."""
        if self._placed is None or (self._placed.device, self._placed.dtype) != (q.device, q.dtype):
            assert self.context is not None
            self._placed = self.context.to(q.device, q.dtype)
        return self._placed

    def ask(
        self, estimator: str, seed: int, images: Sequence[int], step: int, layers: int, device: torch.device
    ) -> Asked:
        """What all layers are asked about in one step, sent to the device at once."""
        if estimator == ALL_WORDS_ESTIMATOR:
            if self._all is None or self._all.tokens.device != device:
                self._all = _on(device, *_columns(self.rows[None, None]))
            return Asked(*(part.expand(layers, *part.shape[1:]) for part in vars(self._all).values()))
        return _on(device, *_columns(self.draw(seed, images, step, layers)[:, :, :, None]))

    def draw(self, seed: int, images: Sequence[int], step: int, layers: int) -> Places:
        """Rows of the drawn word of every concept, int64 [layers, images, N, L], -1 where there is none."""
        layer, image = np.arange(layers)[:, None], np.asarray(images)[None]
        drawn = draw_words(seed, image, step, layer, self.numbers)
        return self.rows[np.arange(len(self.numbers)), drawn]


def _embeddings_of(clip: Any, words: Sequence[str]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The start token [1, C], and the tokens [T, C] of each word."""
    found: list[WordEmbedding] = []
    for first in range(0, len(words), _TOGETHER):
        comfy.model_management.throw_exception_if_processing_interrupted()
        found.extend(word_tokens(clip, words[first : first + _TOGETHER]))
    for word, embedding in zip(words, found, strict=True):
        require_finite(f"the concept-word {quoted(word)}", embedding.tokens)
    # The text encoder is causal: the start token is the same for every word.
    return found[0].start, [embedding.tokens for embedding in found]


def _texts_of(clip: Any, words: Sequence[str]) -> list[WordText]:
    """The texts of all words, behind what stands for the start token: a token of the first one's template.

    Where the model gets a text as it is, nothing is kept but those tokens.
    """
    found: list[WordText] = []
    for word in words:
        comfy.model_management.throw_exception_if_processing_interrupted()
        text = word_text(clip, word)
        if not found:
            beside = dict(token_map(clip, word).groups).get(TEMPLATE) or text.positions
            found.append(text._replace(positions=beside[:1]).shortened())
        found.append(text.shortened())
    return found


def _columns(rows: Places) -> tuple[Places, npt.NDArray[np.bool_], Places]:
    """``tokens``, ``there`` and ``places`` of :class:`Asked` for rows [layers, images, N, W, L], without gaps."""
    flat = rows.reshape(*rows.shape[:2], -1)
    own = flat >= 0
    # Column 0 is the start token, which takes part in the softmax and in no concept.
    column = np.where(own, own.cumsum(-1), -1)
    tokens = np.zeros((*rows.shape[:2], 1 + int(own.sum(-1).max())), dtype=np.int64)
    layer, image, _ = np.nonzero(own)
    tokens[layer, image, column[own]] = flat[own]
    there = np.arange(tokens.shape[-1]) <= own.sum(-1, keepdims=True)
    return tokens, there, column.reshape(rows.shape)


def _on(device: torch.device, tokens: Places, there: npt.NDArray[np.bool_], places: Places) -> Asked:
    return Asked(*(sent(array, device) for array in (tokens, there, places)))


def sent(array: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array on a device, without waiting for it where the device can read by itself."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        # From memory that might be moved the driver reads only when all work before is done.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=comfy.model_management.device_supports_non_blocking(device))
