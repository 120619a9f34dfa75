"""Edits of transformers as their definition says: float64 maps, changed column by column.

It knows nothing of how edits travel or are computed: positive rows are pairs of a source and its target, told by their
contexts, layers by the modules that run. Imported as ``hrv_pack.tests.support.explicit_transformer_edits``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from comfy.patcher_extension import WrappersMP

from ...host.models.layouts import head_layout
from .explicit_edits import prompt_edit
from .explicit_transformer_readings import by_head
from .small_host import explicit_maps
from .small_transformers import Kind, attending

ChangeText = Callable[[torch.Tensor, torch.Tensor, slice], torch.Tensor]
"""Columns of the text [heads, I, T] in the source's and the target's maps, the layer's heads, to those that it uses."""


@contextmanager
def explicitly_edited(
    model: Any, kind: Kind, target: torch.Tensor, change: ChangeText, itself: bool = False
) -> Iterator[Any]:
    """A clone of a MODEL whose rows with the context ``target`` [T, C] follow the row before theirs.

    The columns of the text are what ``change`` makes of both, those of the image the source's if ``itself``.
    """
    layout = head_layout(model)
    tokens: list[int] = []
    rows: list[int] = []

    def note(executor: Any, x: Any, t: Any, c_concat: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        tokens[:] = [context.shape[1]]
        rows[:] = [row for row, own in enumerate(context) if torch.equal(own, target)]
        return executor(x, t, c_concat, context, *args, **kwargs)

    def attend(number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        reads_text = number < len(layout.layers)
        layer = layout.layers[number % len(layout.layers)]
        start = kind.image_start(tokens[0]) if kind.image_start else 0
        text = (start if kind.image_start else k.shape[1]) if reads_text else 0
        plain = explicit_maps(q, k, layer.heads)
        maps = plain.clone()
        for row in rows:
            source, own = plain[row - 1, :, start:], plain[row, :, start:]
            if reads_text:
                maps[row, :, start:, :text] = change(source[..., :text], own[..., :text], layout.head_slice(layer.key))
            if itself:
                maps[row, :, start:, text:] = source[..., text:]
        return (maps @ by_head(v, layer.heads)).transpose(1, 2).flatten(2).to(q.dtype)

    among_image = [block.self_attn for block in model.model.diffusion_model.blocks] if kind.image_start is None else []
    with attending(model, kind, attend, among_image) as clone:
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "note", note)
        yield clone


def edit_of(model: Any, kind: Kind, source: Any, target: Any, **settings: Any) -> tuple[Any, Any]:
    """MODEL and conditioning of Prompt Edit; windows are closed and lists empty unless said."""
    return prompt_edit(model, source, target, {"samples": torch.zeros(1, *kind.latent)}, **settings)[:2]
