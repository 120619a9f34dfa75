"""One conditioning behind another, with the words and the controls of both (``nodes.py``, ConditioningConcat)."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from ...hrv.errors import HRVError
from ..page.texts import show_on_running_node
from .carried import CONTROLS_KEY, READINGS_KEY, TOKEN_MAP_KEY, Conditioning, token_maps

# What a conditioning for Anima carries beside its tensor: the tokens that its words are.
_ANIMA_KEY = "t5xxl_ids"


def concatenate(conditioning_to: Conditioning, conditioning_from: Conditioning) -> Conditioning:
    """The first entry of ``conditioning_from`` behind every entry of ``conditioning_to``, along the token axis.

    Tensors and all else are as the host's ConditioningConcat makes them; token maps cover both, and the controls of
    ``conditioning_from`` come after those of ``conditioning_to``. Raises HRVError where one carries no token map.
    """
    maps = token_maps(conditioning_to, "conditioning_to")
    behind, *ignored = token_maps(conditioning_from, "conditioning_from")
    if ignored:
        sentence = f"conditioning_from has {len(ignored) + 1} entries; only the first is appended."
        logging.warning("[HRV] %s", sentence)
        show_on_running_node(f"HRV: {sentence}")
    tensor, extras = conditioning_from[0]
    if _ANIMA_KEY in extras:
        raise HRVError(
            "ComfyUI appends only half of a prompt for Anima, so its words would be lost. Write both prompts in one "
            "text."
        )
    joined = []
    for (own_tensor, own_extras), words in zip(conditioning_to, maps, strict=True):
        offset = own_tensor.shape[1]
        moved = tuple(
            replace(control, positions=tuple(offset + position for position in control.positions))
            for control in extras.get(CONTROLS_KEY, ())
        )
        together = {
            TOKEN_MAP_KEY: words.joined(behind, offset),
            CONTROLS_KEY: (*own_extras.get(CONTROLS_KEY, ()), *moved),
        }
        if readings := (*own_extras.get(READINGS_KEY, ()), *extras.get(READINGS_KEY, ())):
            together[READINGS_KEY] = readings
        joined.append([torch.cat((own_tensor, tensor), dim=1), {**own_extras, **together}])
    return joined
