"""Recording which concept every head attends to while images are made (arXiv 2412.02237, section 3).

What is recorded of a step is the last evaluation of the model before the step's callback: the evaluation at the
step's own latent, for samplers with one model call a step and for those with several. Evaluations that other nodes
add inside a step (perturbed attention and the like) are not recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.patcher_extension
import numpy as np
import torch
from comfy.patcher_extension import WrappersMP

from ..hrv.draws import draw_words
from ..hrv.errors import HRVError
from ..hrv.layout import AttentionLayer, HeadLayout
from ..hrv.vocabulary import Vocabulary
from ..hrv_kernels.concept_attention import IGNORED, PADDING, concept_attention
from .cross_attention import Replacer, own_options, wrap_cross_attention
from .head_layout import cross_attention_modules, head_layout
from .text_encoding import word_tokens

_WRAPPER_KEY = "hrv_recording"


class WordBank:
    """Every concept-word encoded alone.

    ``context``  float32 [1 + all tokens, C]: the start token, then the tokens of all words.
    ``places``   int64 [N, words, tokens]: rows of ``context`` of each word of each concept, -1 where there is none.
    ``numbers``  how many words each concept has.
    """

    def __init__(self, clip: Any, vocabulary: Vocabulary):
        encoded = [[word_tokens(clip, word) for word in words] for _, words in vocabulary]
        self.numbers = [len(words) for words in encoded]
        longest = max(len(word.tokens) for words in encoded for word in words)
        self.places = np.full((len(encoded), max(self.numbers), longest), -1, dtype=np.int64)
        # The text encoder is causal: the start token is the same for every word.
        pieces, taken = [encoded[0][0].start], 1
        for concept, words in enumerate(encoded):
            for index, word in enumerate(words):
                self.places[concept, index, : len(word.tokens)] = range(taken, taken + len(word.tokens))
                pieces.append(word.tokens)
                taken += len(word.tokens)
        self.context = torch.cat(pieces)

    def draw(self, seed: int, images: Sequence[int], step: int, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """One word per concept and image: rows of ``context`` and their groups, both int64 [images, T].

        A row holds the start token and the words' tokens in the order of the concepts.
        """
        concepts = np.arange(len(self.numbers))
        drawn = np.stack(
            [self.places[concepts, draw_words(seed, image, step, layer, self.numbers)] for image in images]
        )
        groups = np.where(drawn >= 0, concepts[None, :, None], PADDING).reshape(len(images), -1)
        start = np.zeros((len(images), 1), dtype=np.int64)
        places = np.maximum(drawn, 0).reshape(len(images), -1)
        return np.concatenate([start, places], axis=1), np.concatenate([start + IGNORED, groups], axis=1)


class Recorder:
    """Counts of one batch of images: how often each head attends most to each concept.

    ``images`` are the numbers of the batch's images in the build, in row order. :meth:`attach` gives the model to
    sample with, :meth:`step_done` belongs into the sampler's callback, :attr:`counts` int64 [H, N] has the result.
    """

    def __init__(self, model: Any, bank: WordBank, seed: int, images: Sequence[int]):
        self.modules = cross_attention_modules(model)
        self.layout: HeadLayout = head_layout(model)
        self.bank, self.seed, self.images = bank, seed, images
        self.layer_numbers = {layer.key: number for number, layer in enumerate(self.layout.layers)}
        self.counts: torch.Tensor | None = None
        self.step = 0
        self.keys: dict[Any, torch.Tensor] = {}
        self.pending: dict[Any, torch.Tensor] = {}
        self.positive: set[Any] = set()
        self.evaluation_is_new = False
        self.recording = False

    def attach(self, model: Any) -> Any:
        """A clone of the MODEL whose sampling is recorded."""
        clone = model.clone()
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY, self._record_run)
        return clone

    def _record_run(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        self.positive = {cond["uuid"] for cond in guider.conds["positive"]}
        with own_options(guider) as options:
            for kind, wrapper in (
                (WrappersMP.PREDICT_NOISE, self._begin_evaluation),
                (WrappersMP.CALC_COND_BATCH, self._mark_main_pass),
            ):
                comfy.patcher_extension.add_wrapper_with_key(
                    kind, _WRAPPER_KEY, wrapper, options, is_model_options=True
                )
            wrap_cross_attention(options, self.layout, self._replacer)
            return executor(*args, **kwargs)

    def _begin_evaluation(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        self.evaluation_is_new = True
        return executor(*args, **kwargs)

    def _mark_main_pass(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """The first batch of conditionings of an evaluation is the sampler's own; others come from other nodes."""
        self.recording, self.evaluation_is_new = self.evaluation_is_new, False
        try:
            return executor(*args, **kwargs)
        finally:
            self.recording = False

    def _replacer(self, layer: AttentionLayer, previous: Replacer) -> Replacer:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            if self.recording:
                self._record(layer, q, extra)
            return previous(q, k, v, extra)

        return attend

    def _record(self, layer: AttentionLayer, q: torch.Tensor, extra: dict[str, Any]) -> None:
        """Keep the most attended concept of every head and image, int64 [images, heads], until the step is done."""
        uuids = extra["uuids"]
        for chunk, uuid in enumerate(uuids):
            if uuid not in self.positive:
                continue
            queries = q.chunk(len(uuids))[chunk]
            if len(queries) != len(self.images):
                raise HRVError(
                    f"Recording {len(self.images)} images met {len(queries)} rows at {layer.name}: a node on this "
                    "model changes the batch. Build with the model before that node."
                )
            if layer.key not in self.keys:
                context = self.bank.context.to(q.device, q.dtype)
                self.keys[layer.key] = self.modules[layer.key].to_k(context)
            places, groups = self.bank.draw(self.seed, self.images, self.step, self.layer_numbers[layer.key])
            keys = self.keys[layer.key][torch.from_numpy(places).to(q.device)]
            attention = concept_attention(
                queries, keys, torch.from_numpy(groups).to(q.device), len(self.bank.numbers), layer.heads
            )
            self.pending[layer.key] = attention.argmax(-1)

    def step_done(self) -> None:
        """Count what the step's own evaluation showed; later evaluations belong to the next step."""
        missing = [layer.name for layer in self.layout.layers if layer.key not in self.pending]
        if missing:
            raise HRVError(
                f"Nothing was recorded at {', '.join(missing[:4])} in step {self.step + 1}: another node replaces "
                "cross-attention there or skips the model. Build with the plain model."
            )
        most = torch.cat([self.pending[layer.key] for layer in self.layout.layers], dim=1)
        counted = torch.nn.functional.one_hot(most, len(self.bank.numbers)).sum(0)
        self.counts = counted if self.counts is None else self.counts + counted
        self.pending.clear()
        self.step += 1
