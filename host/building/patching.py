"""Letting some heads of a pass read another text: what a pass reads of its text, and what exchanges it.

Keys and values depend on the text alone, so those of one plain pass with the other text serve every pass at the same
noise level. They are taken where attention gets them, behind everything that other nodes and hooks do to the context
or to the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ...hrv.errors import HRVError
from ...hrv.heads.layout import AttentionLayer, LayerKey
from ...hrv_kernels.gated_attention import gate_heads
from ..models.families.architecture import Architecture
from ..models.families.attention_call import Attend, AttentionCall, Wrapping


class Reading(NamedTuple):
    """What one layer reads of a text: keys and values [P, T, heads x d]."""

    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True, eq=False)
class Patch:
    """Which heads read B instead of A, and which tokens of it.

    ``heads`` are head positions 0 .. H-1, None for all. ``positions``, bool [T] or [P, T] for each pair, are the places
    on the token axis where these heads get B's keys and values, None for all.
    """

    heads: frozenset[int] | None = None
    positions: np.ndarray | None = None


class TextReader:
    """Keeps what every layer reads in one pass, by layer, and whether what its attention gives is finite."""

    def __init__(self, architecture: Architecture):
        self._architecture, self.layout = architecture, architecture.layout
        self.readings: dict[LayerKey, Reading] = {}
        self.finite: dict[LayerKey, torch.Tensor] = {}

    def wrapping(self) -> Wrapping:
        """For one pass. Not kept: in a circle with this, what was read would outlive its use."""
        return self._architecture.wrapping(self._attend_at)

    def _attend_at(self, layer: AttentionLayer) -> Attend:
        def attend(call: AttentionCall) -> torch.Tensor:
            if layer.key in self.readings:
                raise HRVError(
                    f"Another node calls the model several times for one latent ({layer.name} ran twice), as tiled "
                    "diffusion does, so heads cannot be exchanged. Take it off the model."
                )
            # Copies, because what comes after may work in place.
            self.readings[layer.key] = Reading(call.keys.clone(), call.values.clone())
            out = call.plain()
            self.finite[layer.key] = out.isfinite().all()
            return out

        return attend

    def require_complete(self, rows: int) -> None:
        """Raise HRVError where layers were skipped, or ran with other rows than those of the latents."""
        missing = [layer.name for layer in self.layout.layers if layer.key not in self.readings]
        if missing:
            raise HRVError(
                f"There was no attention to exchange at {', '.join(missing[:4])}: another node replaces it there or "
                "skips the model, or the prompt does not act at this noise level. Use the plain model and prompts."
            )
        for layer in self.layout.layers:
            found = len(self.readings[layer.key].keys)
            if found != rows:
                raise HRVError(
                    f"{rows} latents met {found} rows of attention at {layer.name}: a node on this model changes the "
                    "batch. Use the model before that node."
                )

    def first_broken(self) -> str:
        """The name of the first layer whose attention gave numbers that are not finite, or "the last layers"."""
        broken = (layer.name for layer in self.layout.layers if not self.finite[layer.key])
        return next(broken, "the last layers")


def gated(architecture: Architecture, gates: torch.Tensor, other: Mapping[LayerKey, Reading]) -> Wrapping:
    """Mixes each head's output of its own text with that of the ``other`` by ``gates`` [P, H]."""
    layout = architecture.layout

    def wrap(layer: AttentionLayer) -> Attend:
        own, reading = gates[:, layout.head_slice(layer.key)], other[layer.key]
        return lambda call: _mixed(call, call.found(*reading), own)

    return architecture.wrapping(wrap)


def _mixed(call: AttentionCall, found: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """The result of a call whose image queries found this elsewhere, by ``gates`` [P, heads] instead of their own."""
    plain = call.plain()
    return call.out(gate_heads(plain[:, call.image], found, gates), plain)


def patched(architecture: Architecture, patch: Patch, other: Mapping[LayerKey, Reading]) -> Wrapping:
    """Lets the heads of a patch read the ``other`` text. Raises HRVError for positions that don't fit."""
    layout = architecture.layout
    positions = None if patch.positions is None else np.atleast_2d(patch.positions)
    if positions is not None:
        rows, tokens = other[layout.layers[0].key].keys.shape[:2]
        if positions.shape not in ((1, tokens), (rows, tokens)):
            raise HRVError(
                f"Positions of {positions.shape[1]} tokens for {len(positions)} pairs don't fit {rows} pairs whose "
                f"prompts reach attention with {tokens} tokens."
            )

    def wrap(layer: AttentionLayer) -> Attend | None:
        heads = range(layout.head_count)[layout.head_slice(layer.key)]
        chosen = [patch.heads is None or head in patch.heads for head in heads]
        if not any(chosen):
            return None
        reading = other[layer.key]
        where = None if positions is None else torch.from_numpy(positions).to(reading.keys.device)[..., None]
        gates = torch.tensor([chosen], dtype=torch.float32, device=reading.keys.device)

        def attend(call: AttentionCall) -> torch.Tensor:
            keys, values = reading
            if where is not None:
                keys, values = torch.where(where, keys, call.keys), torch.where(where, values, call.values)
            found = call.found(keys, values)
            return call.out(found) if all(chosen) else _mixed(call, found, gates)

        return attend

    return architecture.wrapping(wrap)
