"""Replacers of attention (``patches_replace``), as the UNet has them, and ours around them.

The host calls at most one replacer per layer, the first that it finds by one of several keys. Ours are put around
whatever is there: nothing of another pack is ever overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.ldm.modules.attention
import torch

from ....hrv.heads.layout import AttentionLayer

ReplacerKey = tuple[str | int, ...]
"""What the host finds a replacer by among ``patches_replace`` in the options of a call of the model."""

Replacer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]], torch.Tensor]
"""(q [B, P, C], k [B, T, C], v [B, T, C], extra_options) to what goes into ``to_out`` [B, P, C]."""


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
    """What the host computes where no replacer is: bit-equal to it, with the user's attention backend."""
    return comfy.ldm.modules.attention.optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )


class LayerWrapping:
    """Puts ``wrap(layer, previous)`` at layers of a model, in their cross-attention or their self-attention (attn1).

    ``places`` are the layers with the keys by which the host looks for their replacer, in its order. The same replacer
    is wrapped once, so that a compiled model meets the same objects at every call.
    """

    def __init__(
        self,
        places: Sequence[tuple[AttentionLayer, tuple[ReplacerKey, ...]]],
        wrap: Callable[[AttentionLayer, Replacer], Replacer],
        attention: str = "attn2",
    ):
        self._places, self._wrap, self._attention = places, wrap, attention
        # By layer and identity of what is wrapped, which is kept so that no other object can take its identity.
        self._wrapped: dict[Any, tuple[Replacer, Replacer]] = {}

    def into(self, transformer_options: dict[str, Any], context: torch.Tensor | None = None) -> dict[str, Any]:
        """A copy of the transformer options of a call with the replacers in it."""
        every = transformer_options.get("patches_replace", {})
        replace = dict(every.get(self._attention, {}))
        for layer, keys in self._places:
            previous = next((there for key in keys if (there := replace.get(key))), plain_attention)
            wrapped = layer.key, id(previous)
            if wrapped not in self._wrapped:
                self._wrapped[wrapped] = previous, self._wrap(layer, previous)
            replace[keys[0]] = self._wrapped[wrapped][1]
        return {**transformer_options, "patches_replace": {**every, self._attention: replace}}
