"""Keys of concept-words in passes of the model with them, at the latents of the images that are recorded.

For models that make more of a text than their text encoder does. The text of a pass are the words that are asked about,
each encoded alone, one behind the other. Where keys depend on the text alone, one pass with all words is for the whole
run; elsewhere there is one at each evaluation, with the words that are drawn for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import comfy.conds
import comfy.samplers
import torch

from ...hrv.heads.layout import AttentionLayer, LayerKey
from ..models.families.architecture import Architecture
from ..models.families.attention_call import Attend, AttentionCall
from ..prompts.carried import CONTROLS_KEY, READINGS_KEY, TEXT_KEYS
from ..runs.attention import Evaluation
from .concept_words import ConceptWords
from .word_texts import WordText

_PASS_KEY = "hrv_pass_with_concept_words"

# What the host makes of a text for its models, among all that it makes of an entry (comfy/model_base.py, extra_conds).
_OF_TEXT = ("c_crossattn", "attention_mask", "num_tokens")
_NOT_TEXT = (*TEXT_KEYS, "cross_attn", "model_conds", CONTROLS_KEY, READINGS_KEY)


class WordPasses:
    """The passes of one run after the other: :attr:`keys` [rows, T, heads x d] by layer are those of the last one."""

    def __init__(self, architecture: Architecture, words: ConceptWords):
        self.architecture, self.words = architecture, words
        self.keys: dict[LayerKey, torch.Tensor] = {}
        self._wrapping = architecture.wrapping(self._attend_at)
        self._context: torch.Tensor | None = None

    def run(
        self,
        evaluation: Evaluation,
        entry: Mapping[str, Any],
        tokens: torch.Tensor,
        there: torch.Tensor,
    ) -> None:
        """Run passes at the latents of an evaluation; their texts are ``tokens`` int64 [rows, T] of the words' context,
        where they are ``there``.

        In everything else they are as the ``entry`` of the rows' own prompt has it. Rows of unlike lengths go apart:
        what would fill them up would be read too.
        """
        model, x = evaluation.model, evaluation.x
        if self._context is None:
            self._context = self.words.context_in(lambda text: self._as_the_model_gets(model, text, x))
        self.keys = {}
        lengths = there.sum(1)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            context = self._context[tokens[rows, :length].to(self._context.device)]
            own = {key: value for key, value in entry.items() if key not in _NOT_TEXT}
            made = _encoded(model, {**own, "cross_attn": context, "model_conds": {}}, x)
            conds = {name: cond for name, cond in entry["model_conds"].items() if name not in _OF_TEXT}
            conds = _of_rows(conds, rows, len(x)) | {name: made[name] for name in _OF_TEXT if name in made}
            row_entry = {**own, "model_conds": conds, "uuid": uuid4()}
            its = evaluation._replace(conds=[[row_entry]], x=x[rows], timestep=evaluation.timestep[rows])
            its.beside(self).telling(_PASS_KEY, (rows, tokens.shape, length)).run()

    def into(self, options: dict[str, Any], context: torch.Tensor | None) -> dict[str, Any] | None:
        """The transformer options of a call of the model that is one of these passes; None for any other."""
        return self._wrapping.into(options, context) if _PASS_KEY in options else None

    def _as_the_model_gets(self, model: Any, text: WordText, x: torch.Tensor) -> torch.Tensor:
        """A text [T, C], without what the host puts in front of it."""
        # Elsewhere the host leaves it to the model to make Anima's text.
        with torch.inference_mode():
            made = _encoded(model, {**text.extras, "cross_attn": text.tensor, "model_conds": {}}, x)["c_crossattn"].cond
        found: torch.Tensor = made[0, self.architecture.first_token(text.tensor.shape[1], made.shape[1]) :]
        return found

    def _attend_at(self, layer: AttentionLayer) -> Attend:
        # What is kept is bookkeeping that no compiler can trace.
        @torch.compiler.disable
        def attend(call: AttentionCall) -> torch.Tensor:
            rows, shape, length = call.extra[_PASS_KEY]
            first = self.architecture.first_token(length, call.tokens)
            keys = call.keys[:, first : first + length]
            if layer.key not in self.keys:
                self.keys[layer.key] = keys.new_zeros(*shape, keys.shape[-1])
            self.keys[layer.key][rows, :length] = keys
            return call.plain()

        return attend


def _encoded(model: Any, entry: dict[str, Any], x: torch.Tensor) -> dict[str, Any]:
    """What the host makes of an entry for its model, for images that begin from nothing."""
    noise = torch.zeros_like(x[:1])
    (made,) = comfy.samplers.encode_model_conds(
        model.extra_conds, [entry], noise, x.device, "positive", latent_image=noise, denoise_mask=None, seed=0
    )
    conds: dict[str, Any] = made["model_conds"]
    return conds


def _of_rows(conds: Mapping[str, Any], rows: torch.Tensor, count: int) -> dict[str, Any]:
    """Conditions for some of so many rows."""

    def one(cond: Any) -> Any:
        is_by_row = isinstance(cond, comfy.conds.CONDRegular) and isinstance(cond.cond, torch.Tensor)
        if not is_by_row or count == 1 or len(cond.cond) != count:
            return cond
        return cond._copy_with(cond.cond[rows.to(cond.cond.device)])

    return {name: one(cond) for name, cond in conds.items()}
