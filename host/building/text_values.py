"""Values of concept-words at every layer, of passes with the sentences they stand in.

For models that make more of a text than their text encoder does, layer by layer or in an adapter in front. The passes
are at the smallest latents there are, of pure noise at one level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import torch

from ...hrv.errors import HRVError
from ...hrv.heads.layout import AttentionLayer, LayerKey
from ..models.families.architecture import Architecture
from ..models.families.attention_call import Attend, AttentionCall
from ..models.latents import empty_latent
from ..models.ours import our_key
from ..runs.attention import at_every_call
from ..work.sampling import stacked
from .one_level import AtOneLevel
from .word_texts import WordText

PROGRESS = 0.44
"""Sampling progress of the noise level."""

SMALLEST_IMAGE = 64
"""Side of the image in pixels."""

# Rows of one pass at most.
_TOGETHER = 32

_WRAPPER_KEY = our_key("text_values")


def word_values(
    model: Any, architecture: Architecture, texts: Sequence[WordText], done: Callable[[int], None]
) -> dict[LayerKey, torch.Tensor]:
    """By layer, what each word's own tokens have as values, their mean: float32 [texts, heads x d] on the CPU.

    ``done`` is told of every pass and how many texts it had. Raises HRVError for values that are not finite, and where
    another node keeps a layer's attention away.
    """
    batches = _batches(texts)
    found: dict[LayerKey, torch.Tensor] = {}

    def measure(guider: Any, x: torch.Tensor, sigmas: torch.Tensor, options: dict[str, Any]) -> None:
        for batch, entry in zip(batches, guider.conds["positive"], strict=True):
            reader = _ValueReader(architecture, [texts[place] for place in batch])
            own = comfy.model_patcher.create_model_options_clone(options)
            at_every_call(own, _WRAPPER_KEY, reader.into)
            rows = len(batch)
            comfy.samplers.calc_cond_batch(guider.inner_model, [[entry]], x[:rows], sigmas[:rows], own)
            for key, values in reader.complete().items():
                found.setdefault(key, torch.empty(len(texts), values.shape[1]))[batch] = values
            done(rows)

    sampling = model.get_model_object("model_sampling")
    most = max(map(len, batches))
    latent = torch.zeros(empty_latent(model, most, SMALLEST_IMAGE, SMALLEST_IMAGE))
    noise = comfy.sample.prepare_noise(latent[:1], 0).expand_as(latent)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": [_conditioning([texts[place] for place in batch]) for batch in batches]})
    guider.sample(
        noise,
        latent.to(comfy.model_management.intermediate_device()),
        AtOneLevel(measure),
        torch.tensor([float(sampling.percent_to_sigma(PROGRESS)), 0.0]),
        disable_pbar=True,
        seed=0,
    )
    return found


def _batches(texts: Sequence[WordText]) -> list[list[int]]:
    """The places of texts that can go together."""
    alike: dict[Any, list[list[int]]] = {}
    for place, text in enumerate(texts):
        key = (tuple(text.tensor.shape), None if text.may_be_stacked else place)
        batches = alike.setdefault(key, [[]])
        if len(batches[-1]) == _TOGETHER:
            batches.append([])
        batches[-1].append(place)
    return [batch for batches in alike.values() for batch in batches]


def _conditioning(texts: Sequence[WordText]) -> list[Any]:
    (entry,) = stacked([[text.tensor, text.extras] for text in texts])
    return entry


class _ValueReader:
    """Keeps the values of words of one pass, a text in each row."""

    def __init__(self, architecture: Architecture, texts: Sequence[WordText]):
        self._architecture, self._texts = architecture, texts
        self._found: dict[LayerKey, torch.Tensor] = {}
        self._wrapping = architecture.wrapping(self._attend_at)

    def into(self, x: torch.Tensor, context: torch.Tensor | None, options: dict[str, Any]) -> dict[str, Any]:
        """Get into a call of the model."""
        return self._wrapping.into(options, context)

    def _attend_at(self, layer: AttentionLayer) -> Attend:
        def attend(call: AttentionCall) -> torch.Tensor:
            values = call.values
            if len(values) != len(self._texts):
                raise HRVError(
                    f"{len(self._texts)} texts met {len(values)} rows of attention at {layer.name}: a node on this "
                    "model changes the batch. Use the model before that node."
                )
            means = []
            for row, text in zip(values, self._texts, strict=True):
                first = self._architecture.first_token(text.tensor.shape[1], call.tokens)
                means.append(row[[first + position for position in text.positions]].float().mean(0))
            self._found[layer.key] = torch.stack(means)
            return call.plain()

        return attend

    def complete(self) -> Mapping[LayerKey, torch.Tensor]:
        """What was found, on the CPU."""
        for layer in self._architecture.layout.layers:
            if layer.key not in self._found:
                raise HRVError(
                    f"There was no attention to read at {layer.name}: another node replaces it or skips the model. Use "
                    "the plain model."
                )
            if not self._found[layer.key].isfinite().all():
                raise HRVError(
                    f"The model gave numbers that are not finite at {layer.name}. The checkpoint may be broken, or its "
                    "precision too low."
                )
        return {key: values.cpu() for key, values in self._found.items()}
