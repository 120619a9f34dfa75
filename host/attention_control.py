"""Applying the controls that conditionings carry: the model holds only the mechanism.

A conditioning's dict carries controls under :data:`CONTROLS_KEY` (the host keeps unknown keys). A run finds out
which rows belong to which conditioning by the host's lists and uuids (``comfy/samplers.py``, _calc_cond_batch) and
rescales the values of these rows and nobody else's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import comfy.patcher_extension
import numpy as np
import torch
from comfy.patcher_extension import WrappersMP

from ..hrv.controls import Control, Window
from ..hrv.errors import HRVError
from ..hrv.layout import AttentionLayer, HeadLayout
from ..hrv.vectors import HRV
from ..hrv_kernels.value_rescaling import rescale_values
from .cross_attention import Replacer, own_options, with_transformer_option, wrap_cross_attention
from .head_layout import head_layout, require_fitting
from .text_encoding import TOKEN_MAP_KEY, Conditioning

CONTROLS_KEY = "hrv_controls"
_WRAPPER_KEY = "hrv_attention_control"
_TABLE_KEY = "hrv_controls_by_uuid"

# Row layouts of packs that give one prompt several rows; they are not the plain chunks that uuids describe.
_FOREIGN_LAYOUTS = ("cond_or_uncond_couple", "cond_or_uncond_hook_couple", "swarm_cond_or_uncond_couple")

# One chunk of a batch: the number of its list of conditionings (0 positive, 1 negative) and its uuid.
_Chunk = tuple[int, Any]
# What a chunk asks for: its controls, and the tokens of its own context before any repetition.
_Table = dict[_Chunk, tuple[tuple[Control, ...], int]]


def find_words(conditioning: Conditioning, phrases: Sequence[str]) -> list[tuple[int, ...]]:
    """Positions of all occurrences of the phrases in every entry of a tagged conditioning, one tuple per entry.

    Raises HRVError for a conditioning without token maps and for phrases that are not in the prompt.
    """
    found = []
    for _, extras in conditioning:
        tokens = extras.get(TOKEN_MAP_KEY)
        if tokens is None:
            raise HRVError(
                "This conditioning does not say which token belongs to which word. Encode the prompt with the node "
                "'CLIP Text Encode (HRV)'."
            )
        found.append(tuple(position for phrase in phrases for position in tokens.find(phrase)))
    return found


def add_control(
    model: Any,
    conditioning: Conditioning,
    hrv: HRV,
    phrases: Sequence[str],
    control: Callable[[tuple[int, ...]], Control],
) -> tuple[Any, Conditioning]:
    """A clone of the MODEL with the mechanism, and a copy of the conditioning that carries one more control.

    ``control`` makes the control for the positions of the phrases in an entry of the conditioning. Tensors are
    shared. Raises HRVError as :func:`find_words` does and for an HRV of another head layout than the model's.
    """
    require_fitting(hrv, model)
    added = [control(positions) for positions in find_words(conditioning, phrases)]
    if not phrases:
        logging.info("[HRV] No words were given, so the conditioning stays as it is.")
    tagged = [
        [tensor, {**extras, CONTROLS_KEY: (*extras.get(CONTROLS_KEY, ()), one)}]
        for (tensor, extras), one in zip(conditioning, added, strict=True)
    ]
    return with_mechanism(model), tagged


def with_mechanism(model: Any) -> Any:
    """A clone of a MODEL that applies the controls of the conditionings it samples; applying it twice is once."""
    clone = model.clone()
    if not clone.get_wrappers(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY):
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY, _sample_with_controls)
    return clone


def _sample_with_controls(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """OUTER_SAMPLE wrapper: a fresh state for each run, gone when it ends, however it ends."""
    guider = executor.class_obj
    controls = [control for conds in guider.conds.values() for cond in conds for control in cond.get(CONTROLS_KEY, ())]
    if all(control.is_identity for control in controls):
        return executor(*args, **kwargs)
    with own_options(guider) as options:
        _ControlledRun(guider.model_patcher, controls).install(options)
        return executor(*args, **kwargs)


class _ControlledRun:
    """What one sampling run keeps: the layout, window borders in sigmas, and the weights made so far."""

    def __init__(self, model: Any, controls: Sequence[Control]):
        self.layout: HeadLayout = head_layout(model)
        for control in controls:
            if control.layout.signature != self.layout.signature:
                raise HRVError(
                    f"The control '{control.label}' was made for {control.layout.describe()}, but this model has "
                    f"{self.layout.describe()}. Connect the model that the control's node was given."
                )
        sampling = model.get_model_object("model_sampling")
        windows = {control.window for control in controls}
        self.borders = {
            window: (sampling.percent_to_sigma(window.start), sampling.percent_to_sigma(window.end))
            for window in windows
        }
        self.weights: dict[tuple[Any, ...], list[tuple[Window, torch.Tensor]]] = {}
        self.said: set[str] = set()

    def install(self, options: dict[str, Any]) -> None:
        """Put the run into its own model options."""
        comfy.patcher_extension.add_wrapper_with_key(
            WrappersMP.CALC_COND_BATCH, _WRAPPER_KEY, self.name_the_rows, options, is_model_options=True
        )
        wrap_cross_attention(options, self.layout, self.replacer)

    def name_the_rows(
        self,
        executor: Any,
        model: Any,
        conds: list[Any],
        x: torch.Tensor,
        timestep: torch.Tensor,
        options: dict[str, Any],
    ) -> Any:
        """CALC_COND_BATCH wrapper: tell the layers which chunk asks for what."""
        table: _Table = {}
        for number, entries in enumerate(conds):
            # For an area of one list the host adds a copy of that entry, uuid and all, to the others with the context
            # of one of theirs (create_cond_with_same_area_if_none): controls belong to who brought the context.
            owners: dict[int, tuple[Control, ...]] = {}
            for cond in entries or ():
                if context := cond.get("model_conds", {}).get("c_crossattn"):
                    controls = owners.setdefault(id(context), cond.get(CONTROLS_KEY, ()))
                    if controls:
                        table[number, cond["uuid"]] = controls, context.cond.shape[1]
        return executor(model, conds, x, timestep, with_transformer_option(options, _TABLE_KEY, table))

    def replacer(self, layer: AttentionLayer, previous: Replacer) -> Replacer:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            weights = self.active_weights(layer, v, extra)
            return previous(q, k, v if weights is None else rescale_values(v, weights), extra)

        return attend

    def active_weights(self, layer: AttentionLayer, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor | None:
        """The weights [B or 1, T, heads] of this call's rows, or None where nothing is asked for."""
        table: _Table = extra.get(_TABLE_KEY, {})
        lists, uuids = extra.get("cond_or_uncond", ()), extra.get("uuids", ())
        chunks: tuple[_Chunk, ...] = tuple(zip(lists, uuids, strict=False))
        if not any(chunk in table for chunk in chunks):
            return None
        if len(lists) != len(uuids) or v.shape[0] % len(chunks) or any(key in extra for key in _FOREIGN_LAYOUTS):
            self.say("Another node changed how prompts share the rows of the batch; HRV controls are left out there.")
            return None
        key = (layer.key, chunks, v.shape[:2], v.device)
        if key not in self.weights:
            self.weights[key] = self.make_weights(layer, v, chunks, table)
        product: torch.Tensor | None = None
        for window, weights in self.weights[key]:
            if not window.is_whole:
                start, end = self.borders[window]
                sigma = extra["sigmas"][0]
                # On the device: asking for the sigma here would wait for it at every layer of every step.
                weights = torch.where((sigma <= start) & (sigma > end), weights, 1.0)
            product = weights if product is None else product * weights
        return product

    def make_weights(
        self, layer: AttentionLayer, v: torch.Tensor, chunks: tuple[_Chunk, ...], table: _Table
    ) -> list[tuple[Window, torch.Tensor]]:
        """Products of all controls by window, each float32 [B, T, heads] on V's device."""
        tokens = v.shape[1]
        heads = self.layout.head_slice(layer.key)
        products: dict[Window, np.ndarray] = {}
        for number, chunk in enumerate(chunks):
            controls, own_tokens = table.get(chunk, ((), tokens))
            if tokens % own_tokens:
                self.say(
                    f"A prompt of {own_tokens} tokens reached attention with {tokens}; its HRV controls are left out."
                )
                continue
            for control in controls:
                if control.is_identity:
                    continue
                product = products.setdefault(
                    control.window, np.ones((len(chunks), tokens, layer.heads), dtype=np.float32)
                )
                # The host repeats shorter prompts to a common length (comfy/conds.py, CONDCrossAttn.concat).
                for first in range(0, tokens, own_tokens):
                    product[number, [first + position for position in control.positions]] *= control.weights[heads]
        rows = v.shape[0] // len(chunks)
        return [
            (window, torch.from_numpy(product).to(v.device).repeat_interleave(rows, dim=0))
            for window, product in products.items()
        ]

    def say(self, sentence: str) -> None:
        """Log something once in a run."""
        if sentence not in self.said:
            self.said.add(sentence)
            logging.warning("[HRV] %s", sentence)
