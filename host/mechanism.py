"""Putting controls on conditionings: the model holds only the mechanism.

A conditioning's dict carries its controls, readings and edits. What a run makes of them is :mod:`.controls.run`'s,
:mod:`.controls.reading`'s and :mod:`.editing.run`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from ..hrv.controls.control import Control
from ..hrv.controls.reading import Reading
from ..hrv.errors import HRVError
from ..hrv.prompts.tokens import find_phrases
from .controls.reading import ReadingRun, readings_of
from .controls.run import ControlledRun, controls_of
from .editing.sampling import EditedSampling
from .models.ours import our_key
from .prompts.carried import (
    CONTROLS_KEY,
    READINGS_KEY,
    ROWS_KEY,
    TEXT_KEYS,
    TOKEN_MAP_KEY,
    Conditioning,
    PromptReading,
    token_maps,
)
from .runs.attention import own_options

_WRAPPER_KEY = our_key("attention_control")
# The attachment of a model that names the controls made for it, so that a run can say which ones got lost on the way.
_MADE_KEY = our_key("controls_made")


def add_control(
    model: Any,
    conditioning: Conditioning,
    phrases: Sequence[str],
    control: Callable[[tuple[int, ...]], Control],
    occurrence: str | int = "all",
) -> tuple[Any, Conditioning]:
    """A clone of the MODEL with the mechanism, and a copy of the conditioning that carries one more control.

    ``control`` makes the control for the positions of the phrases in an entry of the conditioning; ``occurrence`` is
    one of :meth:`~..hrv.prompts.tokens.TokenMap.find`. Tensors are shared. Raises HRVError for a conditioning without
    token maps and for phrases that are not in the prompt.
    """
    found = [find_phrases(tokens, phrases, occurrence) for tokens in token_maps(conditioning)]
    added = [control(positions) for positions in found]
    if not phrases:
        logging.info("[HRV] No words were given, so the conditioning stays as it is.")
    tagged = [
        [tensor, {**extras, CONTROLS_KEY: (*extras.get(CONTROLS_KEY, ()), one)}]
        for (tensor, extras), one in zip(conditioning, added, strict=True)
    ]
    return with_mechanism(model, added), tagged


def add_reading(
    model: Any, conditioning: Conditioning, other: Conditioning, reading: Callable[[str], Reading]
) -> tuple[Any, Conditioning]:
    """A clone of the MODEL with the mechanism, and a copy of the conditioning some of whose heads read ``other``.

    ``reading`` makes the reading for the text of the other prompt, which is empty if nothing tells it. Tensors are
    shared. Of ``other`` count its context, whose rows are those of the latent or repeated to them, and the controls it
    carries. Raises HRVError for a conditioning that holds the prompts of an edit, for an ``other`` of several entries
    or that reads a further prompt itself, for contexts of unlike widths, and where numbers of ``other`` aren't finite.
    """
    if len(other) != 1 or ROWS_KEY in other[0][1]:
        raise HRVError(
            "The other prompt is several prompts in one, but heads read one. Connect a single prompt, before it is "
            "combined, scheduled or edited."
        )
    if any(ROWS_KEY in extras for _, extras in conditioning):
        raise HRVError(
            "This conditioning holds several prompts, one for each row of the batch. Connect Read by Concept in front "
            "of Prompt Edit, to the source or to a target."
        )
    ((context, extras),) = other
    if extras.get(READINGS_KEY):
        raise HRVError(
            "The other prompt comes from Read by Concept itself. Connect the CONDITIONING of its text encoder here, "
            "and the two Read by Concept nodes behind each other at 'conditioning'."
        )
    for tensor, _ in conditioning:
        if tensor.shape[-1] != context.shape[-1]:
            raise HRVError(
                f"This prompt has {tensor.shape[-1]} features per token and the other one {context.shape[-1]}: encode "
                "both with the same CLIP."
            )
    words = extras.get(TOKEN_MAP_KEY)
    text = {name: extras[name] for name in TEXT_KEYS if name in extras}
    made = reading("" if words is None else words.text)
    if not made.is_identity and not context.isfinite().all():
        raise HRVError(
            "The other prompt has numbers that aren't finite, so the image would be black. Look for the reason where "
            "it is encoded: the text encoder may be broken, or its precision too low."
        )
    one = PromptReading(made, context, extras.get(CONTROLS_KEY, ()), text)
    tagged = [
        [tensor, {**carried, READINGS_KEY: (*carried.get(READINGS_KEY, ()), one)}] for tensor, carried in conditioning
    ]
    return with_mechanism(model, [one.reading]), tagged


def with_mechanism(model: Any, made: Sequence[Control | Reading] = ()) -> Any:
    """A clone of a MODEL that applies the controls and edits of what it samples; applying it twice is once."""
    clone = model.clone()
    if not clone.get_wrappers(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY):
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY, _sample_with_controls)
    names = {control.uid: control.label for control in made if not control.is_identity}
    clone.set_attachments(_MADE_KEY, {**(clone.get_attachment(_MADE_KEY) or {}), **names})
    return clone


def _sample_with_controls(
    executor: Any,
    noise: torch.Tensor,
    latent_image: torch.Tensor,
    sampler: Any,
    sigmas: torch.Tensor,
    denoise_mask: torch.Tensor | None = None,
    callback: Any = None,
    disable_pbar: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Any:
    """OUTER_SAMPLE wrapper: a fresh state for each run, gone when it ends, however it ends."""

    def sample(sampler: Any) -> Any:
        return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed, **kwargs)

    guider = executor.class_obj
    conds = [cond for of_list in guider.conds.values() for cond in of_list]
    controls = [control for cond in conds for control in controls_of(cond)]
    readings = [one for cond in conds for one in readings_of(cond)]
    there = {control.uid for control in controls} | {part.uid for one in readings for part in one.made}
    made = guider.model_patcher.get_attachment(_MADE_KEY) or {}
    missing = [label for uid, label in made.items() if uid not in there]
    edited = [cond[ROWS_KEY] for cond in conds if ROWS_KEY in cond]
    controlled = missing or not all(control.is_identity for control in controls)
    if not (controlled or readings or edited):
        return sample(sampler)
    with own_options(guider) as options:
        # Controls go around readings, and these around edits: what a prompt's words are worth is decided before heads
        # read another one, and that before rows are exchanged.
        editing = None
        if edited:
            editing = EditedSampling(guider, edited, noise, sampler, sigmas, seed)
            editing.install(options)
        if readings:
            ReadingRun(guider, readings).install(options)
        if controlled:
            ControlledRun(guider.model_patcher, controls, missing).install(options)
        return sample(sampler) if editing is None else editing.sample(sample)
