"""Further prompts that the host prepares beside a guider's own: their texts as they reach the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import uuid4

import torch

from .carried import CONTROLS_KEY, EXCITEMENT_KEY, READINGS_KEY, ROWS_KEY, TEXT_KEYS

_OF_KEY = "hrv_beside"
# What an entry carries that is not for its text: where and when it acts, and what acts on it.
_NOT_TEXT = (
    "control", "hooks", "gligen", "area", "mask", "default", CONTROLS_KEY, EXCITEMENT_KEY, READINGS_KEY, ROWS_KEY
)  # fmt: skip


class PromptBeside:
    """A prompt like an ``entry`` of the guider's list ``name``, but for its ``context`` [rows, T, C] and ``text``.

    The latter is by :data:`~.carried.TEXT_KEYS`. ``key`` is what it is found by.
    """

    def __init__(
        self, key: Any, name: str, entry: Mapping[str, Any], context: torch.Tensor, text: Mapping[str, Any]
    ) -> None:
        self.entry = {
            **{name: value for name, value in entry.items() if name not in (*TEXT_KEYS, *_NOT_TEXT)},
            **text,
            "cross_attn": context,
            "prompt_type": name,
            "model_conds": {},
            "uuid": uuid4(),
            _OF_KEY: key,
        }


def prepare_beside(guider: Any, of_list: str, prompts: Iterable[PromptBeside]) -> None:
    """Have the host prepare prompts as it does those of a guider, in a list of conditionings of their own."""
    guider.conds[of_list] = [prompt.entry for prompt in prompts]


def prepared_beside(guider: Any, of_list: str) -> dict[Any, dict[str, Any]]:
    """What the host made of :func:`prepare_beside`'s prompts, by their keys: what the model is given for each."""
    # Others are the host's, for areas of other lists (comfy/samplers.py, create_cond_with_same_area_if_none).
    return {entry[_OF_KEY]: entry["model_conds"] for entry in guider.conds.get(of_list, ()) if _OF_KEY in entry}
