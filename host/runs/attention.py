"""Getting into a model's attention for one sampling run, and out again.

The host calls at most one replacer per layer, the first that it finds by one of several keys. Ours are put in anew at
every call of the model, into that call's own options and around whatever is there by then, hooks on conditionings
included (``comfy/hooks.py``, TransformerOptionsHook): nothing of another pack is ever overwritten, whatever the order
of the nodes, nothing of ours can be, and nothing stays on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.patcher_extension import WrappersMP

from ...hrv.heads.layout import AttentionLayer
from ..models.families.architecture import Architecture

Replacer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, Any]], torch.Tensor]
"""(q [B, P, C], k [B, T, C], v [B, T, C], extra_options) to what goes into ``to_out`` [B, P, C]."""

_Options = dict[str, Any]
CallOptions = Callable[[torch.Tensor, "torch.Tensor | None", _Options], _Options]
"""(x [B, ...], context [B, T, C] or None, transformer options) of a call of the model to those it shall run with."""


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
    """What the host computes where no replacer is: bit-equal to it, with the user's attention backend."""
    return comfy.ldm.modules.attention.optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )


class LayerWrapping:
    """Puts ``wrap(layer, previous)`` at every layer of a model, in its cross-attention or its self-attention (attn1).

    The same replacer is wrapped once, so that a compiled model meets the same objects at every call.
    """

    def __init__(
        self,
        architecture: Architecture,
        wrap: Callable[[AttentionLayer, Replacer], Replacer],
        attention: str = "attn2",
    ):
        self._wrap, self._attention = wrap, attention
        self._places = [(layer, architecture.replacer_keys(layer)) for layer in architecture.layout.layers]
        # By layer and identity of what is wrapped, which is kept so that no other object can take its identity.
        self._wrapped: dict[Any, tuple[Replacer, Replacer]] = {}

    def into(self, transformer_options: _Options) -> _Options:
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


def at_every_call(options: _Options, key: str, change: CallOptions) -> None:
    """Have ``change`` make the transformer options of every call of the model that runs with ``options``.

    ``options`` is a run's own model options. The host calls it with all that nodes and hooks have put there
    (``comfy/model_base.py``, BaseModel.apply_model).
    """

    def apply_model(
        executor: Any,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: Any,
        c_crossattn: torch.Tensor | None,
        control: Any,
        transformer_options: _Options,
        **kwargs: Any,
    ) -> Any:
        return executor(x, t, c_concat, c_crossattn, control, change(x, c_crossattn, transformer_options), **kwargs)

    comfy.patcher_extension.add_wrapper_with_key(
        WrappersMP.APPLY_MODEL, key, apply_model, options, is_model_options=True
    )


@contextmanager
def own_options(guider: Any) -> Iterator[_Options]:
    """Give a guider a copy of its model options inside the block, and its own ones back whatever happens."""
    original = guider.model_options
    guider.model_options = comfy.model_patcher.create_model_options_clone(original)
    guider.model_options.setdefault("transformer_options", {})
    try:
        yield guider.model_options
    finally:
        guider.model_options = original


def with_transformer_option(options: Mapping[str, Any], key: str, value: Any) -> _Options:
    """A copy of model options with one more entry in its transformer options."""
    return {**options, "transformer_options": {**options.get("transformer_options", {}), key: value}}
