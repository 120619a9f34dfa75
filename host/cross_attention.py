"""Getting into a model's cross-attention for one sampling run, and out again.

The host keeps at most one replacer per ``attn2`` layer and looks its three-part key up before the two-part one
(``comfy/ldm/modules/attention.py``, BasicTransformerBlock). Ours are put in when a run starts, into the run's own
copy of the options and around whatever is there by then: nothing of another pack is ever overwritten, whatever the
order of the nodes, and nothing stays on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_patcher
import torch

from ..hrv.layout import AttentionLayer, HeadLayout

Replacer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]], torch.Tensor]
"""(q [B, P, C], k [B, T, C], v [B, T, C], extra_options) to what goes into ``to_out`` [B, P, C]."""


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
    """What the host computes where no replacer is: bit-equal to it, with the user's attention backend."""
    return comfy.ldm.modules.attention.optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )


def wrap_cross_attention(
    options: dict[str, Any], layout: HeadLayout, wrap: Callable[[AttentionLayer, Replacer], Replacer]
) -> None:
    """Put ``wrap(layer, previous)`` at every layer of ``options`` (a run's own model options)."""
    replace = options["transformer_options"].setdefault("patches_replace", {}).setdefault("attn2", {})
    for layer in layout.layers:
        previous = replace.get(layer.key) or replace.get(layer.key[:2]) or plain_attention
        replace[layer.key] = wrap(layer, previous)


@contextmanager
def own_options(guider: Any) -> Iterator[dict[str, Any]]:
    """Give a guider a copy of its model options inside the block, and its own ones back whatever happens."""
    original = guider.model_options
    guider.model_options = comfy.model_patcher.create_model_options_clone(original)
    guider.model_options.setdefault("transformer_options", {})
    try:
        yield guider.model_options
    finally:
        guider.model_options = original


def with_transformer_option(options: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of model options with one more entry in its transformer options."""
    return {**options, "transformer_options": {**options.get("transformer_options", {}), key: value}}
