"""Prompt-to-prompt as its papers write it: attention maps in float64, changed one by one; and the nodes that do it.

The maps' side knows nothing of how edits travel or are computed: the positive rows of a call are groups of a source and
its targets, and a test says what becomes of their maps. Imported as ``hrv_pack.tests.support.explicit_edits``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ...host.models.layouts import head_layout
from ...nodes.editing import EditWords, PromptEdit
from .small_host import explicit_maps

Maps = torch.Tensor
"""float64 [heads, positions, tokens or positions]."""

ChangeCross = Callable[[Maps, Maps, slice, float], Maps]
"""(the source's maps, the target's own, head positions of the layer, progress) to the maps that the target uses."""


def with_explicit_edits(
    model: Any,
    targets: Mapping[int, ChangeCross],
    self_end: float = 0.0,
    self_positions: int = 0,
    group: int = 2,
    added: Callable[[torch.Tensor], torch.Tensor] = torch.zeros_like,
) -> Any:
    """A clone of a MODEL whose positive rows come in groups of ``group``; row r of a group changes by ``targets[r]``.

    While progress is below ``self_end``, these rows have the source's self-attention maps in layers of at most
    ``self_positions``. ``added`` is what something else adds to cross-attention, from a row's own queries.
    """
    clone = model.clone()
    layout = head_layout(model)

    def note(executor: Any, x: Any, timesteps: Any, context: Any, y: Any, control: Any, options: Any) -> Any:
        return executor(x, timesteps, context, y, control, {**options, "progress": 1.0 - float(timesteps[0]) / 999})

    clone.add_wrapper_with_key("diffusion_model", "explicit edits", note)

    def rows(extra: dict[str, Any], count: int) -> list[tuple[int, int, int]]:
        """(row, its source, its place in the group) of every target."""
        lists = extra["cond_or_uncond"]
        share = count // len(lists)
        return [
            (row, row - row % share % group, row % share % group)
            for row in range(count)
            if lists[row // share] == 0 and row % share % group in targets
        ]

    def attend(q: Any, k: Any, v: Any, maps: torch.Tensor) -> torch.Tensor:
        values = v.double().unflatten(-1, (maps.shape[1], -1)).transpose(1, 2)
        return (maps @ values).transpose(1, 2).flatten(2).to(q.dtype)

    def cross(heads: slice) -> Callable[..., torch.Tensor]:
        def replacer(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> torch.Tensor:
            plain = explicit_maps(q, k, extra["n_heads"])
            maps = plain.clone()
            for row, source, place in rows(extra, len(q)):
                maps[row] = targets[place](plain[source], plain[row], heads, extra["progress"])
            return attend(q, k, v, maps) + added(q)

        return replacer

    def itself(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> torch.Tensor:
        maps = explicit_maps(q, k, extra["n_heads"])
        if extra["progress"] < self_end and q.shape[1] <= self_positions:
            for row, source, _ in rows(extra, len(q)):
                maps[row] = maps[source]
        return attend(q, k, v, maps)

    for layer in layout.layers:
        clone.set_model_attn2_replace(cross(layout.head_slice(layer.key)), *layer.key)
        clone.set_model_attn1_replace(itself, *layer.key)
    return clone


def empty_latent(rows: int = 1, size: int = 8) -> dict[str, Any]:
    return {"samples": torch.zeros(rows, 4, size, size)}


def prompt_edit(model: Any, source: Any, target: Any, picture: Any = None, **settings: Any) -> tuple[Any, ...]:
    """What Prompt Edit gives; windows are closed and lists empty unless said."""
    defaults = {
        "pairs": "",
        "cross_end": 0.0,
        "self_end": 0.0,
        "clamp": 0.0,
        "cross_start": 0.0,
        "self_start": 0.0,
        "self_size": 1 / 16,
    }
    return PromptEdit.execute(
        model=model, source=source, target=target, latent=picture or empty_latent(), **{**defaults, **settings}
    ).result


def words_edit(target: Any, words: str, **settings: Any) -> Any:
    """What Edit Words gives."""
    defaults = {"weight": 1.0, "start": 0.0, "end": -1.0, "clamp": 0.0}
    return EditWords.execute(conditioning=target, words=words, **{**defaults, **settings}).result[0]
