"""Getting into a model's attention for one sampling run, and out again.

What acts on attention (:class:`~..models.families.attention_call.Wrapping`) is put in anew at every call of the model,
into that call's own options and around whatever is there by then, hooks on conditionings included
(``comfy/hooks.py``, TransformerOptionsHook): nothing of another pack is ever overwritten, whatever the order of the
nodes, nothing of ours can be, and nothing stays on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.patcher_extension import WrappersMP

from ..models.families.overriding import REFERENCES_KEY

_Options = dict[str, Any]
CallOptions = Callable[[torch.Tensor, "torch.Tensor | None", _Options], _Options]
"""(x [B, ...], context [B, T, C] or None, transformer options) of a call of the model to those it shall run with."""


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
        if kwargs.get("ref_latents"):
            transformer_options = {**transformer_options, REFERENCES_KEY: True}
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
