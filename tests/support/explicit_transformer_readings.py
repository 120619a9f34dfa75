"""Readings of transformers as their definition says: float64 maps of both prompts' texts, mixed head by head.

What a layer has of the other text is what it has in a run of the model with that text. It knows nothing of how readings
travel: layers are told by the modules that run, rows by their context. Imported as
``hrv_pack.tests.support.explicit_transformer_readings``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from comfy.patcher_extension import WrappersMP

from ...host.models.layouts import head_layout
from .small_host import explicit_maps
from .small_transformers import Kind, attending


@dataclass(frozen=True, eq=False)
class ExplicitReading:
    """Rows with ``context`` [T, C] read ``other`` [T', C], as the model gets them, with gates [H].

    Columns of the other text at ``scaled`` positions are multiplied by ``factors`` [H], those of their own text at
    ``own_scaled`` by ``own_factors``.
    """

    context: torch.Tensor
    other: torch.Tensor
    gates: np.ndarray
    scaled: tuple[int, ...] = ()
    factors: np.ndarray | None = None
    own_scaled: tuple[int, ...] = ()
    own_factors: np.ndarray | None = None


def by_head(part: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, L, heads x d] as [B, heads, L, d] in float64."""
    return part.double().unflatten(-1, (heads, -1)).transpose(1, 2)


def mixed(
    heads: int,
    of_layer: slice,
    of_image: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    text: int,
    readings: Sequence[ExplicitReading],
    texts: Sequence[Any],
) -> torch.Tensor:
    """What one row's image queries find [heads, I, d], of whose keys and values the first ``text`` are its own text."""
    q, k, v = of_image

    def weighed(keys: Any, values: Any, scaled: tuple[int, ...], factors: np.ndarray | None) -> torch.Tensor:
        maps = explicit_maps(q, keys, heads)[0]
        if factors is not None:
            maps[:, :, list(scaled)] *= torch.tensor(factors[of_layer])[:, None, None]
        return maps @ by_head(values, heads)[0]

    found = weighed(k, v, readings[0].own_scaled, readings[0].own_factors)
    for one, (keys, values) in zip(readings, texts, strict=True):
        joined = torch.cat([keys, k[:, text:]], dim=1), torch.cat([values, v[:, text:]], dim=1)
        gates = torch.tensor(one.gates[of_layer])[:, None, None]
        found = (1 - gates) * found + gates * weighed(*joined, one.scaled, one.factors)
    return found


@contextmanager
def explicitly_reading(model: Any, kind: Kind, readings: Sequence[ExplicitReading]) -> Iterator[Any]:
    """A clone of a MODEL some of whose rows read other texts, a later reading over the earlier ones."""
    layout = head_layout(model)
    asked: list[list[ExplicitReading]] = []  # of each row
    tokens: list[int] = []
    kept: dict[tuple[int, ExplicitReading], tuple[torch.Tensor, torch.Tensor]] = {}
    keeping: list[ExplicitReading] = []

    def note(executor: Any, x: Any, t: Any, c_concat: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        asked[:] = [[one for one in readings if torch.equal(row, one.context)] for row in context]
        for one in readings:
            if any(one in row for row in asked):
                keeping[:], tokens[:] = [one], [len(one.other)]
                more = {**kwargs, **({"num_tokens": len(one.other)} if "num_tokens" in kwargs else {})}
                executor(x, t, c_concat, one.other.expand(len(x), -1, -1), *args, **more)
        keeping.clear()
        tokens[:] = [context.shape[1]]
        return executor(x, t, c_concat, context, *args, **kwargs)

    def attend(number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        layer = layout.layers[number]
        start = kind.image_start(tokens[0]) if kind.image_start else 0
        text = start if kind.image_start else k.shape[1]
        if keeping:
            kept[number, keeping[0]] = k[:, :text].clone(), v[:, :text].clone()
        found = explicit_maps(q, k, layer.heads) @ by_head(v, layer.heads)
        for row, of_row in enumerate([] if keeping else asked):
            if of_row:
                of_image = q[row : row + 1, start:], k[row : row + 1], v[row : row + 1]
                texts = [tuple(part[row : row + 1] for part in kept[number, one]) for one in of_row]
                found[row, :, start:] = mixed(layer.heads, layout.head_slice(layer.key), of_image, text, of_row, texts)
        return found.transpose(1, 2).flatten(2).to(q.dtype)

    with attending(model, kind, attend) as clone:
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "note", note)
        yield clone
